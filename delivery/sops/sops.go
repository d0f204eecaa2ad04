package sops

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// A tree is branch, []any, *Leaf, or nil. The keys of a branch are in the file's order,
// which the MAC is about.
type branch []entry

type entry struct {
	key   string
	value any
}

// Leaf is a value of a file.
type Leaf struct {
	Path  []string
	Value any // string, int, float64, bool or time.Time

	secret bool // it was encrypted
}

// Key is the leaf's place, as "db.password".
func (l *Leaf) Key() string { return strings.Join(l.Path, ".") }

// File is a SOPS file.
type File struct {
	docs []branch // several in YAML alone
	meta metadata
	emit func([]branch, func(*Leaf) any) ([]byte, error)
}

// ErrKey says that none of the identities is one that the file is encrypted to.
var ErrKey = errors.New("it is encrypted to none of the delivery's age keys")

var errDamaged = errors.New("it was changed by hand, or is damaged: its MAC is wrong")

// Decrypt decrypts all values, and makes sure that the file is what SOPS wrote.
func (f *File) Decrypt(ids []age.Identity) error {
	key, err := f.meta.dataKey(ids)
	if err != nil {
		return err
	}
	block, err := aes.NewCipher(key)
	if err != nil || len(key) != 32 {
		return errDamaged
	}
	d := decryption{block: block, rule: f.meta.rule, only: f.meta.macOnlyEncrypted}
	sum := sha512.New()
	d.mac = sum
	if d.only {
		known := sha256.Sum256([]byte("sops"))
		sum.Write(known[:])
	}
	for _, doc := range f.docs {
		if err := d.branch(doc, nil); err != nil {
			return err
		}
	}
	want, _, err := d.value(f.meta.mac, f.meta.modified.Format(time.RFC3339))
	if got := fmt.Sprintf("%X", sum.Sum(nil)); err != nil || subtle.ConstantTimeCompare([]byte(fmt.Sprint(want)), []byte(got)) != 1 {
		return errDamaged
	}
	return nil
}

// Each calls do with every value that was encrypted.
func (f *File) Each(do func(*Leaf)) {
	for _, doc := range f.docs {
		each(doc, func(l *Leaf) {
			if l.secret {
				do(l)
			}
		})
	}
}

func each(v any, do func(*Leaf)) {
	switch v := v.(type) {
	case branch:
		for _, e := range v {
			each(e.value, do)
		}
	case []any:
		for _, e := range v {
			each(e, do)
		}
	case *Leaf:
		do(v)
	}
}

// Plain is the file in clear, with what instead says in place of each value that was
// encrypted; nil: the value itself.
func (f *File) Plain(instead func(*Leaf) any) ([]byte, error) {
	return f.emit(f.docs, func(l *Leaf) any {
		if l.secret && instead != nil {
			return instead(l)
		}
		return l.Value
	})
}

// decryption is one pass over a file.
type decryption struct {
	block cipher.Block
	rule  func(path []string, text string) bool
	only  bool // what is in clear is not part of the MAC
	mac   io.Writer
}

func (d decryption) branch(b branch, path []string) error {
	for i := range b {
		at := append(append(make([]string, 0, len(path)+1), path...), b[i].key)
		v, err := d.node(b[i].value, at)
		if err != nil {
			return err
		}
		b[i].value = v
	}
	return nil
}

func (d decryption) node(v any, path []string) (any, error) {
	switch v := v.(type) {
	case branch:
		return v, d.branch(v, path)
	case []any:
		out := v[:0]
		for _, e := range v {
			n, err := d.node(e, path)
			if err != nil {
				return nil, err
			}
			if n != comment {
				out = append(out, n)
			}
		}
		return out, nil
	case *Leaf:
		return d.leaf(v, path)
	}
	return v, nil
}

// comment stands for what was none of a list's items.
var comment any = new(struct{ byte })

func (d decryption) leaf(l *Leaf, path []string) (any, error) {
	l.Path = path
	text, isText := l.Value.(string)
	secret := d.rule(path, text)
	if secret {
		if !isText {
			return nil, fmt.Errorf("%s is in clear, and should not be: encrypt the file again", l.Key())
		}
		v, kind, err := d.value(text, strings.Join(path, ":")+":")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.Key(), err)
		}
		if kind == "comment" {
			return comment, nil
		}
		l.Value, l.secret = v, text != ""
	}
	if secret || !d.only {
		b, err := bytesOf(l.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.Key(), err)
		}
		if _, err := d.mac.Write(b); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// bytesOf is what the MAC is made of.
func bytesOf(v any) ([]byte, error) {
	switch v := v.(type) {
	case string:
		return []byte(v), nil
	case int:
		return strconv.AppendInt(nil, int64(v), 10), nil
	case float64:
		return strconv.AppendFloat(nil, v, 'f', -1, 64), nil
	case bool:
		if v {
			return []byte("True"), nil
		}
		return []byte("False"), nil
	case time.Time:
		return v.MarshalText()
	}
	return nil, fmt.Errorf("a value of type %T", v)
}

var valueRE = regexp.MustCompile(`^ENC\[AES256_GCM,data:([A-Za-z0-9+/=]*),iv:([A-Za-z0-9+/=]+),tag:([A-Za-z0-9+/=]+),type:([a-z]+)\]$`)

// value decrypts what stands in a file; an empty value is not encrypted.
func (d decryption) value(text, place string) (v any, kind string, err error) {
	if text == "" {
		return "", "str", nil
	}
	m := valueRE.FindStringSubmatch(text)
	if m == nil {
		return nil, "", errors.New("it is in clear, and should not be, or damaged: encrypt the file again")
	}
	var parts [3][]byte
	for i := range parts {
		if parts[i], err = base64.StdEncoding.DecodeString(m[i+1]); err != nil {
			return nil, "", errDamaged
		}
	}
	gcm, err := cipher.NewGCMWithNonceSize(d.block, len(parts[1]))
	if err != nil {
		return nil, "", errDamaged
	}
	plain, err := gcm.Open(nil, parts[1], append(parts[0], parts[2]...), []byte(place))
	if err != nil {
		return nil, "", errDamaged
	}
	v, err = typed(m[4], string(plain))
	return v, m[4], err
}

func typed(kind, text string) (v any, err error) {
	switch kind {
	case "str", "bytes", "comment":
		return text, nil
	case "int":
		v, err = strconv.Atoi(text)
	case "float":
		v, err = strconv.ParseFloat(text, 64)
	case "bool":
		v, err = strconv.ParseBool(text)
	case "time":
		var t time.Time
		err = t.UnmarshalText([]byte(text))
		v = t
	default:
		return nil, fmt.Errorf("a value of the type %s is not known here", kind)
	}
	if err != nil {
		return nil, errDamaged // the cause holds the value
	}
	return v, nil
}

// Age decrypts a file that age itself encrypted, armored or not.
func Age(content []byte, ids []age.Identity) ([]byte, error) {
	var r io.Reader = strings.NewReader(string(content))
	if strings.HasPrefix(string(content), armor.Header) {
		r = armor.NewReader(r)
	}
	r, err := age.Decrypt(r, ids...)
	if _, not := errors.AsType[*age.NoIdentityMatchError](err); not {
		return nil, ErrKey
	}
	if err != nil {
		return nil, errors.New("it is damaged, or no age file: encrypt it again")
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, errors.New("it is damaged: encrypt it again")
	}
	return b, nil
}

// IsAge says whether a file is one that age encrypted.
func IsAge(content []byte) bool {
	return strings.HasPrefix(string(content), "age-encryption.org/") || strings.HasPrefix(string(content), armor.Header)
}
