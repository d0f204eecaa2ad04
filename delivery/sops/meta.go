package sops

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
)

// metadata is what SOPS keeps beside the values.
type metadata struct {
	enc              []string // the data key, encrypted to each of the age recipients
	others           []string // kinds of keys that are no age keys
	groups           bool
	modified         time.Time
	mac              string
	macOnlyEncrypted bool
	rule             func(path []string, text string) bool // says what is encrypted
}

// kinds of keys that are none of age's, by their name in a file.
var kinds = map[string]string{
	"pgp": "PGP", "kms": "AWS KMS", "gcp_kms": "GCP KMS", "azure_kv": "Azure Key Vault", "hc_vault": "Vault", "hckms": "Huawei Cloud KMS",
}

// found says whether a branch is SOPS's metadata, and not something of that name.
func found(b branch) bool {
	return b.text("mac") != "" || b.text("lastmodified") != ""
}

func (b branch) get(key string) any {
	i := slices.IndexFunc(b, func(e entry) bool { return e.key == key })
	if i < 0 {
		return nil
	}
	return b[i].value
}

func (b branch) text(key string) string {
	l, ok := b.get(key).(*Leaf)
	if !ok || l.Value == nil {
		return ""
	}
	if t, ok := l.Value.(time.Time); ok {
		return t.Format(time.RFC3339)
	}
	return fmt.Sprint(l.Value)
}

var ageKeyRE = regexp.MustCompile(`^age__list_[0-9]+__map_enc$`)

// read reads metadata, nested or as dotenv and INI files have it.
func read(b branch) (m metadata, err error) {
	m.mac = b.text("mac")
	if m.modified, err = time.Parse(time.RFC3339, b.text("lastmodified")); err != nil || m.mac == "" {
		return m, errors.New("its metadata is damaged: encrypt it again")
	}
	m.macOnlyEncrypted, _ = strconv.ParseBool(b.text("mac_only_encrypted")) // absent: false
	for _, e := range b {
		name, _, _ := strings.Cut(e.key, "__list_")
		_, flat := e.value.(*Leaf)
		list, _ := e.value.([]any)
		some := len(list) > 0 || flat && name != e.key
		switch {
		case name == "key_groups" && some:
			m.groups = true
		case kinds[name] != "" && some && !slices.Contains(m.others, kinds[name]):
			m.others = append(m.others, kinds[name])
		case ageKeyRE.MatchString(e.key):
			m.enc = append(m.enc, b.text(e.key))
		case e.key == "age":
			for _, k := range list {
				if k, ok := k.(branch); ok {
					m.enc = append(m.enc, k.text("enc"))
				}
			}
		}
	}
	m.rule, err = rule(b)
	return m, err
}

// rule is which values are encrypted: by their own key, or by that of any above.
func rule(b branch) (func([]string, string) bool, error) {
	any := func(holds func(string) bool, is bool) func([]string, string) bool {
		return func(path []string, _ string) bool { return slices.ContainsFunc(path, holds) == is }
	}
	for _, key := range []string{"encrypted_comment_regex", "unencrypted_comment_regex"} {
		if b.text(key) != "" { // it says so by comments: the values say so themselves
			return func(_ []string, text string) bool { return valueRE.MatchString(text) }, nil
		}
	}
	for _, key := range []string{"encrypted_regex", "unencrypted_regex"} {
		if x := b.text(key); x != "" {
			re, err := regexp.Compile(x)
			if err != nil {
				return nil, fmt.Errorf("its %s is no regular expression", key)
			}
			return any(re.MatchString, key == "encrypted_regex"), nil
		}
	}
	if x := b.text("encrypted_suffix"); x != "" {
		return any(func(k string) bool { return strings.HasSuffix(k, x) }, true), nil
	}
	x := b.text("unencrypted_suffix")
	if x == "" {
		x = "_unencrypted"
	}
	return any(func(k string) bool { return strings.HasSuffix(k, x) }, false), nil
}

// dataKey is the key of the values.
func (m metadata) dataKey(ids []age.Identity) ([]byte, error) {
	switch {
	case m.groups:
		return nil, errors.New("its key is shared among key groups (Shamir), which are not read here: give it one group, with an age key")
	case len(m.enc) == 0 && len(m.others) > 0:
		return nil, fmt.Errorf("it is encrypted to %s and to no age key: add one to .sops.yaml, then `sops updatekeys`", strings.Join(m.others, ", "))
	}
	for _, enc := range m.enc {
		key, err := Age([]byte(strings.TrimSpace(enc)), ids)
		if err == nil {
			return key, nil
		}
		if !errors.Is(err, ErrKey) {
			return nil, err
		}
	}
	return nil, ErrKey
}
