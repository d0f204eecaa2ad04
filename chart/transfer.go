package chart

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/registry"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/fairlead/fairlead/cluster"
)

// Transfer is how a server of packages is spoken to.
type Transfer struct {
	Username, Password string
	CAFile             string // certificates to trust, PEM
	Insecure           bool   // any certificate
	PlainHTTP          bool   // of a registry
	// Repo is the URL of a repository that what is fetched is the name of a package in; "": the
	// name says all.
	Repo string
	// Keyring is a file of public keys, one of which must have signed the package;
	// "": none must.
	Keyring string
	Signed  func(Signature) // is told of a signature that holds; may be nil

	have Validator // of the archive that is there already
}

// Fetch reads the package that ref names: a directory or archive of this machine,
// REPOSITORY/NAME, a URL, or oci://REGISTRY/PATH.
func (r Repositories) Fetch(ctx context.Context, ref, version string, t Transfer) ([]File, error) {
	if _, err := os.Stat(ref); err == nil && t.Keyring == "" && t.Repo == "" {
		return Read(ref)
	}
	name, data, err := r.Archive(ctx, ref, version, t)
	if err != nil {
		return nil, err
	}
	return ReadArchive(name, bytes.NewReader(data))
}

// Archive fetches the archive of the package that ref names, and looks at all of it.
func (r Repositories) Archive(ctx context.Context, ref, version string, t Transfer) (name string, data []byte, err error) {
	a, err := r.locate(ctx, ref, version, t)
	if err != nil {
		return "", nil, err
	}
	if _, err := ReadArchive(ref, bytes.NewReader(a.data)); err != nil {
		return "", nil, err
	}
	if t.Keyring != "" {
		if err := a.verify(ref, t); err != nil {
			return "", nil, err
		}
	}
	return a.name, a.data, nil
}

func (r Repositories) locate(ctx context.Context, ref, version string, t Transfer) (archived, error) {
	if t.Repo != "" {
		return r.inside(ctx, ref, version, t)
	}
	info, err := os.Stat(ref)
	switch {
	case err == nil && info.IsDir():
		files, err := Read(ref)
		if err != nil {
			return archived{}, err
		}
		name, b, err := Pack(files)
		return archived{name: name, data: b}, err
	case err == nil:
		return local(ref)
	case strings.Contains(ref, "://"):
		return r.at(ctx, ref, version, t)
	case strings.Count(ref, "/") == 1 && !strings.HasPrefix(ref, ".") && !strings.HasPrefix(ref, "/"):
		return r.archive(ctx, ref, version, t)
	}
	return archived{}, cluster.NotFoundf("there is no package %s: a directory or archive here, REPOSITORY/NAME, https://…, oci://… or git+https://…", ref)
}

func local(name string) (archived, error) {
	f, err := os.Open(name) //nolint:gosec // the user's own file
	if err != nil {
		return archived{}, cluster.Invalidf("%w", err)
	}
	defer func() { _ = f.Close() }() // read only
	b, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return archived{}, cluster.Invalidf("%s: %w", name, err)
	}
	prov, err := os.ReadFile(name + ".prov") //nolint:gosec // beside it
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return archived{}, cluster.Invalidf("%w", err)
	}
	return archived{name: filepath.Base(name), data: b, prov: prov}, nil
}

// at fetches an archive by its URL.
func (r Repositories) at(ctx context.Context, at, version string, t Transfer) (archived, error) {
	u, err := url.Parse(at)
	if err != nil {
		return archived{}, cluster.Invalidf("%q is no URL", at)
	}
	switch u.Scheme {
	case "oci":
		return r.pull(ctx, strings.TrimPrefix(at, "oci://"), version, t)
	case "file":
		return local(u.Path)
	case "http", "https":
	default:
		return archived{}, cluster.Invalidf("%s: packages come by https, oci and file", at)
	}
	b, said, err := t.changed(ctx, at, t.have)
	if err != nil {
		return archived{}, err
	}
	a := archived{name: path.Base(u.Path), data: b, said: said}
	if t.Keyring != "" {
		u.Path += ".prov"
		if a.prov, err = t.get(ctx, u.String()); err != nil && cluster.KindOf(err) != cluster.KindNotFound {
			return archived{}, err
		}
	}
	return a, nil
}

// get reads what is at a URL, of at most MaxSize bytes.
func (t Transfer) get(ctx context.Context, at string) ([]byte, error) {
	b, _, err := t.changed(ctx, at, Validator{})
	return b, err
}

// changed reads what is at a URL, of at most MaxSize bytes, and what is said of it; nil: it
// is what is known.
func (t Transfer) changed(ctx context.Context, at string, known Validator) ([]byte, Validator, error) {
	c, err := t.client(ctx)
	if err != nil {
		return nil, known, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, known, cluster.Invalidf("%w", err)
	}
	known.ask(req)
	if t.Username != "" {
		req.SetBasicAuth(t.Username, t.Password)
	}
	res, err := c.Do(req)
	if refused, is := errors.AsType[*cluster.Error](err); is {
		return nil, known, refused
	}
	if err != nil {
		return nil, known, cluster.Transientf("%w", err)
	}
	defer func() { _ = res.Body.Close() }() // read only
	switch {
	case res.StatusCode == http.StatusNotModified && known != (Validator{}):
		return nil, known, nil
	case res.StatusCode == http.StatusUnauthorized, res.StatusCode == http.StatusForbidden:
		return nil, known, &cluster.Error{Kind: cluster.KindForbidden, Err: fmt.Errorf("%s: %s; add the repository with --username", at, res.Status)}
	case res.StatusCode == http.StatusNotFound:
		return nil, known, cluster.NotFoundf("%s: %s", at, res.Status)
	case res.StatusCode != http.StatusOK:
		return nil, known, cluster.Transientf("%s: %s", at, res.Status)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, known, cluster.Transientf("%s: %w", at, err)
	}
	return b, validator(res.Header), nil
}

// answerTimeout is how long a server may take to begin an answer: one that is stuck, or
// cut off, is said to be.
const answerTimeout = time.Minute

// client speaks for as long as ctx lasts, and reads at most MaxSize bytes of an answer.
func (t Transfer) client(ctx context.Context) (*http.Client, error) {
	base, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("the default transport is another one")
	}
	base = base.Clone()
	base.ResponseHeaderTimeout = answerTimeout
	base.TLSClientConfig = &tls.Config{InsecureSkipVerify: t.Insecure} //nolint:gosec // when asked to
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, cluster.Invalidf("--ca-file: %w", err)
		}
		base.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !base.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, cluster.Invalidf("--ca-file %s: no certificate is in it", t.CAFile)
		}
	}
	return &http.Client{CheckRedirect: elsewhere, Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		res, err := base.RoundTrip(req.WithContext(ctx)) // Helm's client has none
		if err == nil {
			res.Body = &atMost{ReadCloser: res.Body, left: MaxSize}
		}
		return res, err
	})}, nil
}

// elsewhere is asked where a server sends its client: from TLS to what has none it does not
// go, and a password is for the server alone that it was given for. Of net/http's own, a
// host's other ports and the names below its own get it, too, and in clear.
func elsewhere(req *http.Request, via []*http.Request) error {
	const most = 10 // as net/http's own
	from := via[len(via)-1].URL
	switch {
	case len(via) >= most:
		return fmt.Errorf("it led to another place %d times", most)
	case from.Scheme == "https" && req.URL.Scheme != "https":
		return &cluster.Error{Kind: cluster.KindForbidden, Msg: fmt.Sprintf("%s://%s leads to %s://%s, without TLS: it is not followed", from.Scheme, from.Host, req.URL.Scheme, req.URL.Host)}
	case !sameHost(req.URL.String(), via[0].URL.String()):
		req.Header.Del("Authorization")
	}
	return nil
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// atMost ends with an error after so many bytes.
type atMost struct {
	io.ReadCloser
	left int64
}

func (a *atMost) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if a.left -= int64(n); a.left < 0 {
		return 0, fmt.Errorf("more than %d MiB", MaxSize>>20)
	}
	return n, err
}

// registry makes Helm's client of registries. Passwords come from the transfer, or
// from where docker login keeps them.
func (r Repositories) registry(ctx context.Context, t Transfer) (*registry.Client, error) {
	h, err := t.client(ctx)
	if err != nil {
		return nil, err
	}
	opts := []registry.ClientOption{
		registry.ClientOptHTTPClient(h), registry.ClientOptWriter(io.Discard), registry.ClientOptEnableCache(true),
		registry.ClientOptCredentialsFile(filepath.Join(r.Dir, "registry.json")),
	}
	if t.PlainHTTP {
		opts = append(opts, registry.ClientOptPlainHTTP())
	}
	if t.Username != "" {
		opts = append(opts, registry.ClientOptBasicAuth(t.Username, t.Password))
	}
	return registry.NewClient(opts...)
}

// pull fetches a package from a registry.
func (r Repositories) pull(ctx context.Context, ref, version string, t Transfer) (archived, error) {
	c, err := r.registry(ctx, t)
	if err != nil {
		return archived{}, err
	}
	got, ref, err := pulled(c, ref, version, registry.PullOptWithChart(true), registry.PullOptWithProv(t.Keyring != ""), registry.PullOptIgnoreMissingProv(true))
	if err != nil {
		return archived{}, err
	}
	if has := got.Chart.Meta.Version; version != "" && has != version && !chartutil.IsCompatibleRange(version, has) {
		return archived{}, cluster.Invalidf("oci://%s is version %s, and --version %s was asked for: give one of the two", ref, has, version)
	}
	a := archived{name: fmt.Sprintf("%s-%s.tgz", got.Chart.Meta.Name, got.Chart.Meta.Version), data: got.Chart.Data}
	if got.Prov != nil && len(got.Prov.Data) > 0 {
		a.prov = got.Prov.Data
	}
	return a, nil
}

// pulled fetches what is at ref, or where that names no tag the version that is meant: an
// exact one, with a v before it or without, needs no list of all there are.
func pulled(c *registry.Client, ref, version string, opts ...registry.PullOption) (*registry.PullResult, string, error) {
	fetch := func(ref string) (*registry.PullResult, string, error) {
		got, err := c.Pull(ref, opts...)
		if err != nil {
			return nil, ref, registryError(ref, err)
		}
		return got, ref, nil
	}
	if strings.ContainsAny(path.Base(ref), ":@") {
		return fetch(ref)
	}
	bare, v := strings.CutPrefix(version, "v")
	if _, err := semver.StrictNewVersion(bare); err == nil {
		got, at, err := fetch(ref + ":" + version)
		if cluster.KindOf(err) == cluster.KindNotFound {
			other := "v" + bare
			if v {
				other = bare
			}
			if got, at, found := fetch(ref + ":" + other); cluster.KindOf(found) != cluster.KindNotFound {
				return got, at, found
			}
		}
		return got, at, err
	}
	tags, err := c.Tags(ref)
	if err != nil {
		return nil, ref, registryError(ref, err)
	}
	tag, err := registry.GetTagMatchingVersionOrConstraint(tags, version)
	if err != nil {
		return nil, ref, cluster.NotFoundf("oci://%s: %w", ref, err)
	}
	return fetch(ref + ":" + tag)
}

func registryError(ref string, err error) error {
	if own, is := errors.AsType[*cluster.Error](err); is {
		return own
	}
	status := 0
	if answer, is := errors.AsType[*errcode.ErrorResponse](err); is {
		status = answer.StatusCode
		if status == http.StatusNotFound && !strings.HasPrefix(answer.URL.Path, "/v2/") { // where tokens are
			return cluster.Transientf("oci://%s: %w", ref, err)
		}
	}
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden, errors.Is(err, auth.ErrBasicCredentialNotFound):
		return &cluster.Error{Kind: cluster.KindForbidden, Err: fmt.Errorf("oci://%s: %w; `docker login` keeps a password, --username asks for one", ref, err)}
	case status == http.StatusNotFound, errors.Is(err, errdef.ErrNotFound):
		return cluster.NotFoundf("oci://%s: %w", ref, err)
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"): // net/http has no name for it
		return cluster.Invalidf("oci://%s: the registry speaks no TLS; --plain-http allows that", ref)
	}
	return cluster.Transientf("oci://%s: %w", ref, err)
}

// Pushed is a package in a registry.
type Pushed struct {
	Ref    string `json:"ref"`
	Digest string `json:"digest"` // of the manifest
	Size   int64  `json:"size"`
}

// Push brings an archive into a registry, below oci://REGISTRY/PATH, under its own name and version.
func (r Repositories) Push(ctx context.Context, file, into string, t Transfer) (Pushed, error) {
	below, oci := strings.CutPrefix(into, "oci://")
	if !oci {
		return Pushed{}, cluster.Invalidf("%q: packages are pushed to oci://REGISTRY/PATH", into)
	}
	a, err := local(file)
	if err != nil {
		return Pushed{}, err
	}
	files, err := ReadArchive(file, bytes.NewReader(a.data))
	if err != nil {
		return Pushed{}, err
	}
	info, err := Describe(files)
	if err != nil {
		return Pushed{}, err
	}
	c, err := r.registry(ctx, t)
	if err != nil {
		return Pushed{}, err
	}
	ref := strings.TrimSuffix(below, "/") + "/" + info.Name + ":" + info.Version
	var opts []registry.PushOption
	if a.prov != nil {
		opts = append(opts, registry.PushOptProvData(a.prov))
	}
	res, err := c.Push(a.data, ref, opts...)
	if err != nil {
		return Pushed{}, registryError(ref, err)
	}
	return Pushed{"oci://" + res.Ref, res.Manifest.Digest, int64(len(a.data))}, nil
}

// Unpack writes a chart to dir/NAME, and returns where.
func Unpack(files []File, dir string) (string, error) {
	info, err := Describe(files)
	if err != nil {
		return "", err
	}
	if bad := badName(info.Name); bad != "" || info.Name != path.Base(info.Name) {
		return "", cluster.Invalidf("the name %q is no name of a directory", info.Name)
	}
	to := filepath.Join(dir, info.Name)
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return "", cluster.Invalidf("%s is there already; remove it, or choose another --destination", to)
	}
	if err := os.MkdirAll(to, 0o750); err != nil {
		return "", err
	}
	root, err := os.OpenRoot(to)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	for _, f := range files {
		if err := root.MkdirAll(path.Dir(f.Name), 0o750); err != nil {
			return "", err
		}
		if err := root.WriteFile(f.Name, f.Data, 0o644); err != nil {
			return "", err
		}
	}
	return to, nil
}
