package cluster

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// DeliveryName names a delivery.
type DeliveryName string

// ValidDeliveryName refuses what cannot name a delivery: it is part of a URL.
func ValidDeliveryName(n DeliveryName) error {
	if err := ValidAppName(AppName(n)); err != nil {
		return Invalidf("delivery %s: use 1 to 40 lower-case letters, digits and -, starting with a letter", quote(string(n)))
	}
	return nil
}

// Kinds of a SourceSpec.
const (
	SourceGit   = "git"
	SourceChart = "chart" // a package of a repository or registry
	SourceOCI   = "oci"   // files or a package in a registry: its manifest says which
)

// SourceSpec is where a delivery's files come from.
type SourceSpec struct {
	Kind string `json:"kind" enum:"git,chart,oci"`
	// URL is https://…, ssh://…, user@host:path or file:///… of a Git repository;
	// https://… of a repository of packages, or oci://REGISTRY/PATH/NAME, with :TAG or
	// @DIGEST in place of Tag or Digest.
	URL string `json:"url" maxLength:"2048"`
	// Branch, Tag, Semver or Commit: one of them says which commit. None: the
	// repository's own branch. Semver is a range; the highest tag in it is taken.
	Branch string `json:"branch,omitempty" maxLength:"250"`
	Tag    string `json:"tag,omitempty" maxLength:"250"`
	Semver string `json:"semver,omitempty" maxLength:"250"` // of a package too
	// TagPrefix is what stands before the version in the tags that count, in Git.
	TagPrefix string `json:"tag_prefix,omitempty" maxLength:"250"`
	Commit    string `json:"commit,omitempty" maxLength:"64"`
	Digest    string `json:"digest,omitempty" maxLength:"100"` // in a registry
	// Chart names the package in its repository.
	Chart string `json:"chart,omitempty" maxLength:"250"`
	// User and Secret are the login; Secret names a secret of the app, which holds a
	// password, a token or, for ssh, a private key.
	User   string `json:"user,omitempty" maxLength:"250"`
	Secret string `json:"secret,omitempty" maxLength:"100"`
	// KnownHosts are the lines of the host's keys, which ssh needs; CA are
	// certificates to trust beside the usual ones, PEM.
	KnownHosts string `json:"known_hosts,omitempty" maxLength:"65536"`
	CA         string `json:"ca,omitempty" maxLength:"262144"`
	PlainHTTP  bool   `json:"plain_http,omitempty" doc:"of a registry that speaks no TLS"`
}

// What a delivery does about a release that failed, and about drift.
const (
	OnFailureRetry    = "retry"
	OnFailureRollback = "rollback"
	DriftCorrect      = "correct"
	DriftReport       = "report"
)

// Delivery is a source that an app follows. Writer: API.
type Delivery struct {
	Name   DeliveryName `json:"name,omitempty"`
	App    AppName      `json:"app" maxLength:"40"`
	Source SourceSpec   `json:"source"`
	// Path is the directory in the source that all other files are relative to.
	Path string `json:"path,omitempty" maxLength:"1024"`
	// Compose are the Compose files, the strongest last; none: the usual names.
	Compose  []string          `json:"compose,omitempty" maxItems:"20"`
	Profiles []string          `json:"profiles,omitempty" maxItems:"50"`
	EnvFiles []string          `json:"env_files,omitempty" maxItems:"20" doc:"with variables for interpolation, the strongest last"`
	Env      map[string]string `json:"env,omitempty" doc:"variables for interpolation; they win over those of files"`
	// Package is the directory of a package, in place of Compose files; a source of
	// packages is one itself.
	Package string   `json:"package,omitempty" maxLength:"1024"`
	Values  []string `json:"values,omitempty" maxItems:"20" doc:"files of values, the strongest last"`
	Set     string   `json:"set,omitempty" maxLength:"65536" doc:"values, YAML; they win over those of files"`
	// SetTyped: to templates, whole numbers of Set are whole, and floats are written 2.0; in
	// files of values, and in a Set that is none, each number is a float.
	SetTyped bool `json:"set_typed,omitempty" doc:"numbers of set are to templates what they are written as: 2 is whole, 2.0 a float; without it each is a float, as in files"`
	// SkipCRDs and SkipSchema are what the flags of install pass over.
	SkipCRDs   bool `json:"skip_crds,omitempty" doc:"pass over what crds/ of the package has"`
	SkipSchema bool `json:"skip_schema_validation,omitempty" doc:"do not check the values against the package's schema"`
	// Decrypt names the app's secret with the age identities that the source's files
	// are encrypted to.
	Decrypt string `json:"decrypt,omitempty" maxLength:"100"`

	Interval  Duration       `json:"interval,omitempty" doc:"between two looks at the source"`
	Timeout   Duration       `json:"timeout,omitempty" doc:"of fetching, and of becoming healthy"`
	DependsOn []DeliveryName `json:"depends_on,omitempty" maxItems:"50"`
	KeepGone  bool           `json:"keep_gone,omitempty" doc:"keep services that left the source"`
	Adopt     bool           `json:"adopt,omitempty" doc:"take over an app that was made otherwise, also where services of it are not in the source and go"`
	Suspend   bool           `json:"suspend,omitempty"`
	OnFailure string         `json:"on_failure,omitempty" enum:"retry,rollback,"`
	Drift     string         `json:"drift,omitempty" enum:"correct,report,"`
	// Webhook names the app's secret that signs webhooks; "": none is taken.
	Webhook string   `json:"webhook,omitempty" maxLength:"100"`
	Notify  []Notice `json:"notify,omitempty" maxItems:"10"`
	// NotifyCA are certificates to trust of those, beside the usual ones, PEM.
	NotifyCA string `json:"notify_ca,omitempty" maxLength:"262144"`
	// Images choose images of registries; ImageWrite says what becomes of them.
	Images     []ImagePolicy `json:"images,omitempty" maxItems:"20"`
	ImageWrite ImageWrite    `json:"image_write,omitzero"`

	Created time.Time `json:"created,omitzero"`
	By      string    `json:"by,omitempty"`
	Rev     StoreRev  `json:"-"`
}

// Actor is who makes the releases of a delivery.
func (d Delivery) Actor() string { return "delivery " + string(d.Name) }

// Notice is where news of a delivery goes.
type Notice struct {
	// URL is sent to; Secret names the app's secret that holds a URL, since those of
	// Slack are passwords: one of them.
	URL    string `json:"url,omitempty" maxLength:"2048"`
	Secret string `json:"secret,omitempty" maxLength:"100"`
	Format string `json:"format,omitempty" enum:"json,slack,"`
	// Events narrows what is sent; none: all.
	Events []string `json:"events,omitempty" maxItems:"10"`
}

// Key identifies a receiver among those of a delivery.
func (n Notice) Key() string {
	sum := sha256.Sum256([]byte(strings.Join(slices.Concat([]string{n.URL, n.Secret, n.Format}, n.Events), "\n")))
	return hex.EncodeToString(sum[:6])
}

// Bounds and defaults of a delivery.
const (
	DefaultDeliveryInterval = time.Minute
	DefaultDeliveryTimeout  = 5 * time.Minute
	minDeliveryInterval     = 5 * time.Second
)

// Filled is d with the defaults.
func (d Delivery) Filled() Delivery {
	if d.Interval <= 0 {
		d.Interval = Duration(DefaultDeliveryInterval)
	}
	if d.Timeout <= 0 {
		d.Timeout = Duration(DefaultDeliveryTimeout)
	}
	if d.OnFailure == "" {
		d.OnFailure = OnFailureRetry
	}
	if d.Drift == "" {
		d.Drift = DriftCorrect
	}
	return d
}

var scpRE = regexp.MustCompile(`^([A-Za-z0-9_.-]+@)?([A-Za-z0-9_.-]+):([^/].*|/[^/].*)$`)

// Transport is "https", "http", "ssh", "file" or "oci"; "" for what is no source.
func (s SourceSpec) Transport() string {
	if !strings.Contains(s.URL, "://") {
		if s.Kind == SourceGit && scpRE.MatchString(s.URL) {
			return "ssh"
		}
		return ""
	}
	u, err := url.Parse(s.URL)
	if err != nil {
		return ""
	}
	return u.Scheme
}

// Host is where the source is, as the URL says it; "" on the servers' own disk.
func (s SourceSpec) Host() string {
	if m := scpRE.FindStringSubmatch(s.URL); m != nil && s.Transport() == "ssh" {
		return m[2]
	}
	u, err := url.Parse(s.URL)
	if err != nil {
		return ""
	}
	return u.Host
}

// Clear reports whether a password would go to the source without TLS; to this machine's own
// repositories of packages and registries it may.
func (s SourceSpec) Clear() bool {
	t := s.Transport()
	if t != "http" && (t != "oci" || !s.PlainHTTP) {
		return false
	}
	u, err := url.Parse(s.URL)
	if err != nil || s.Kind == SourceGit {
		return true
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())
}

// InClear refuses a login to a source that is spoken to without TLS.
func InClear(s SourceSpec) error {
	if s.Transport() == "oci" {
		return Invalidf("a password is not sent without TLS: leave out --plain-http, or the secret")
	}
	return Invalidf("a password is not sent over http: use https")
}

// Validate refuses what can never be delivered.
func (d Delivery) Validate() error {
	if err := ValidDeliveryName(d.Name); err != nil {
		return err
	}
	if err := ValidAppName(d.App); err != nil {
		return err
	}
	if err := d.Source.validate(); err != nil {
		return err
	}
	if d.Path != "" && !local(d.Path) {
		return Invalidf("%s leads out of the source: the path is relative to it", quote(d.Path))
	}
	files := slices.Concat([]string{d.Package}, d.Compose, d.EnvFiles, d.Values)
	for _, f := range files {
		if f != "" && !staysIn(d.Path, f) {
			return Invalidf("%s leads out of the source: files are named relative to its %s", quote(f), quote("./"+d.Path))
		}
	}
	var fits error
	if d.Source.Kind != SourceOCI {
		fits = d.Fits(d.Source.Kind == SourceChart)
	} else if fits = d.Fits(false); fits != nil { // it is one of both
		fits = d.Fits(true)
	}
	switch {
	case fits != nil:
		return fits
	case d.Interval != 0 && d.Interval.D() < minDeliveryInterval:
		return Invalidf("interval %s: at least %s; a webhook is sooner", d.Interval, minDeliveryInterval)
	case d.Timeout < 0, d.Timeout.D() > 24*time.Hour:
		return Invalidf("timeout %s: at most 24h", d.Timeout)
	case !slices.Contains([]string{"", OnFailureRetry, OnFailureRollback}, d.OnFailure):
		return Invalidf("on_failure %s: retry or rollback", quote(d.OnFailure))
	case !slices.Contains([]string{"", DriftCorrect, DriftReport}, d.Drift):
		return Invalidf("drift %s: correct or report", quote(d.Drift))
	}
	for _, dep := range d.DependsOn {
		if err := ValidDeliveryName(dep); err != nil {
			return err
		}
	}
	for _, n := range d.Notify {
		if err := n.validate(); err != nil {
			return err
		}
	}
	if d.NotifyCA != "" && len(d.Notify) == 0 {
		return Invalidf("certificates to trust of those who are notified, and nobody is: name a URL")
	}
	if err := validCA("of those who are notified", d.NotifyCA); err != nil {
		return err
	}
	return d.validateImages()
}

// Fits refuses what does not go with a source that is a package itself, or that is none.
func (d Delivery) Fits(isPackage bool) error {
	packaged := d.Package != "" || isPackage
	switch {
	case packaged && len(d.Compose)+len(d.EnvFiles)+len(d.Profiles)+len(d.Env) > 0:
		return Invalidf("a package has values, and no Compose files, profiles or variables")
	case !packaged && (len(d.Values) > 0 || d.Set != ""):
		return Invalidf("values are given to a package: name its directory")
	case !packaged && (d.SkipCRDs || d.SkipSchema):
		return Invalidf("crds/ and a schema of values are of a package: name its directory, or leave the flag out")
	case isPackage && (d.Package != "" || d.Path != "" || len(d.Values) > 0):
		return Invalidf("a package of a repository has no other files beside it: give values themselves, with --set, or a file of them here with --values-file")
	}
	return nil
}

// Reference is what a registry is asked for; tag or digest may be in the URL as well.
func (s SourceSpec) Reference() (repository, tag, digest string) {
	repository = strings.TrimPrefix(s.URL, "oci://")
	repository, digest, _ = strings.Cut(repository, "@")
	if i := strings.LastIndex(repository, ":"); i > strings.Index(repository, "/") && strings.Contains(repository, "/") {
		repository, tag = repository[:i], repository[i+1:]
	}
	if s.Tag != "" {
		tag = s.Tag
	}
	if s.Digest != "" {
		digest = s.Digest
	}
	return repository, tag, digest
}

func local(f string) bool {
	return !path.IsAbs(f) && !slices.Contains(strings.Split(f, "/"), "..") && !strings.ContainsRune(f, 0)
}

// staysIn reports whether a file that is named relative to a directory of the source is in it:
// beside that directory there may be what several apps share.
func staysIn(dir, f string) bool {
	at := path.Join(dir, f)
	return !path.IsAbs(f) && at != ".." && !strings.HasPrefix(at, "../") && !strings.ContainsRune(f, 0)
}

func (s SourceSpec) validate() error {
	which := 0
	words := []string{s.Branch, s.Tag, s.Semver, s.Commit, s.Digest}
	if s.Kind == SourceOCI {
		in := SourceSpec{URL: s.URL}
		_, tag, digest := in.Reference()
		words = append(words, tag+digest) // beside a digest a tag is a name
		if _, _, d := s.Reference(); d != "" && !digestRE.MatchString(d) {
			return Invalidf("%s is no digest: sha256: and 64 hexadecimal digits", quote(d))
		}
	}
	for _, w := range words {
		if w != "" {
			which++
		}
	}
	t := s.Transport()
	if u, err := url.Parse(s.URL); err == nil && u.User != nil {
		if _, has := u.User.Password(); has || t != "ssh" {
			return Invalidf("a login does not belong into the URL: give the user, and a secret that holds the password")
		}
	}
	switch {
	case which > 1:
		return Invalidf("give a branch, a tag, a semver range, a commit or a digest: one of them")
	case s.TagPrefix != "" && (s.Kind != SourceGit || s.Semver == ""):
		return Invalidf("tag_prefix %s is for the tags of a Git repository that are versions in a semver range: give the range, with --semver", quote(s.TagPrefix))
	case s.Kind == SourceGit && !slices.Contains([]string{"https", "http", "ssh", "file"}, t):
		return Invalidf("%s is no Git repository: https://…, ssh://…, user@host:path or file:///…", quote(s.URL))
	case s.Kind == SourceGit && t == "ssh" && strings.TrimSpace(s.KnownHosts) == "":
		return Invalidf("over ssh the host's keys must be known: give the lines that `ssh-keyscan HOST` prints, once checked, with --known-hosts FILE")
	case s.Kind == SourceGit && t == "ssh" && s.Secret == "":
		return Invalidf("over ssh a private key is needed: name the secret that holds it")
	case s.Secret != "" && s.Clear():
		return InClear(s)
	case s.Kind == SourceChart && !slices.Contains([]string{"https", "http", "oci"}, t):
		return Invalidf("%s is no repository of packages: https://… or oci://…", quote(s.URL))
	case s.Kind == SourceChart && t != "oci" && s.Secret != "" && s.User == "":
		return Invalidf("a repository of packages takes a password with a name alone: give the name with --user")
	case t == "oci" && s.Secret != "" && s.User == "":
		return Invalidf("a registry takes a password or token with a name alone: give the name with --user")
	case s.Kind == SourceChart && t != "oci" && s.Chart == "":
		return Invalidf("which package of %s? name it", s.URL)
	case s.Kind == SourceChart && s.Branch+s.Tag+s.Commit != "":
		return Invalidf("a package has versions: give a semver range, or one version")
	case s.Kind == SourceOCI && t != "oci":
		return Invalidf("%s is nothing in a registry: oci://REGISTRY/PATH/NAME", quote(s.URL))
	case s.Kind == SourceOCI && s.Branch+s.Commit+s.Chart != "":
		return Invalidf("a registry has tags and digests, and the name in the URL: give a tag, a semver range or a digest")
	case s.Kind != SourceOCI && s.Digest != "":
		return Invalidf("a digest is of what is in a registry: oci://…")
	case !slices.Contains([]string{SourceGit, SourceChart, SourceOCI}, s.Kind):
		return Invalidf("kind %s of source: git, chart or oci", quote(s.Kind))
	case s.Commit != "" && !commitRE.MatchString(s.Commit):
		return Invalidf("%s is no commit: 40 hexadecimal digits", quote(s.Commit))
	}
	return validCA("of the source", s.CA)
}

// validCA refuses what is no certificate to trust: nothing would be trusted more for it.
func validCA(whose, text string) error {
	if text != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(text)) {
		return Invalidf("the certificates to trust %s: there is none in the file: PEM begins with -----BEGIN CERTIFICATE-----", whose)
	}
	return nil
}

var digestRE = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

var commitRE = regexp.MustCompile(`^[0-9a-f]{40}$`)

func (n Notice) validate() error {
	if (n.URL == "") == (n.Secret == "") {
		return Invalidf("a notification goes to a URL, or to that which a secret holds: one of them")
	}
	if n.URL != "" {
		if u, err := url.Parse(n.URL); err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" {
			return Invalidf("%s is no URL to notify: https://…", quote(n.URL))
		}
	}
	if !slices.Contains([]string{"", "json", "slack"}, n.Format) {
		return Invalidf("format %s of notifications: json or slack", quote(n.Format))
	}
	for _, e := range n.Events {
		if !slices.Contains(DeliveryEvents, e) {
			return Invalidf("there is no event %s: %s", quote(e), strings.Join(DeliveryEvents, ", "))
		}
	}
	return nil
}

// Key identifies what a delivery asks for at a revision: another one is worth a
// new attempt where this one failed.
func (d Delivery) Key(revision string) string {
	d = d.Filled()
	d.Interval, d.Timeout, d.DependsOn, d.Suspend, d.OnFailure, d.Drift = 0, 0, nil, false, "", ""
	d.Adopt = false
	d.Webhook, d.Notify, d.NotifyCA, d.Created, d.By, d.Rev = "", nil, "", time.Time{}, "", 0
	d.ImageWrite.Author, d.ImageWrite.Message = "", ""
	d.Source.User, d.Source.Secret, d.Source.KnownHosts, d.Source.CA = "", "", "", ""
	b, _ := json.Marshal(d) // of plain fields
	sum := sha256.Sum256(b)
	return revision + "+" + hex.EncodeToString(sum[:6])
}

// Terms are what a release has to become healthy under: where they are others, what failed is
// worth a new attempt.
func (d Delivery) Terms() string {
	d = d.Filled()
	return d.Timeout.String() + " " + d.OnFailure
}

// Phases of a delivery.
const (
	PhaseNew       = ""          // not looked at yet
	PhaseWaiting   = "waiting"   // for another delivery
	PhaseDeploying = "deploying" // a release of it is becoming healthy
	PhaseReady     = "ready"
	PhaseDrifted   = "drifted" // reported, not corrected
	PhaseFailed    = "failed"  // tried again, ever more seldom
	PhaseHeld      = "held"    // back at the last good revision, until a new commit
)

// Events of deliveries, for notifications and history.
const (
	EventDeployed   = "deployed"    // a release was made
	EventReady      = "ready"       // it is healthy
	EventFailed     = "failed"      // it is not, or nothing could be deployed
	EventRolledBack = "rolled-back" // to the last good release
	EventDrift      = "drift"
	EventForced     = "forced" // the branch's history was replaced, a tag moved, or a version published again
)

// DeliveryEvents are all events.
var DeliveryEvents = []string{EventDeployed, EventReady, EventFailed, EventRolledBack, EventDrift, EventForced, EventImages}

// ShortRevision is a commit, a digest or a version as people write it.
func ShortRevision(revision string) string {
	const digits, commit, sha256 = 8, 40, 64
	if version, digest, of := strings.Cut(revision, "@"); of {
		return version + "@" + ShortRevision(digest)
	}
	algorithm, sum, digest := strings.Cut(revision, ":")
	switch {
	case digest && len(sum) == sha256:
		return algorithm + ":" + sum[:digits]
	case len(revision) == commit:
		return revision[:digits]
	}
	return revision
}
