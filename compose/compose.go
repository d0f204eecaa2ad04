package compose

import (
	"context"
	"io"
	"slices"

	"github.com/fairlead/fairlead/cluster"
)

// Options say what to load and for which cluster.
type Options struct {
	// Files in the order of their precedence; empty: those of COMPOSE_FILE, else
	// the usual names in Dir, or in the nearest directory above.
	Files []string
	Stdin io.Reader // the file named "-"; nil: there is none
	// Packaged are main files in memory, in the order of their precedence, as the
	// templates of a package made them. They take the place of Files, and may name
	// neither another file nor a variable of this machine.
	Packaged []Document
	// SecretFiles are what file: of a packaged secret may name, by their names in the
	// package; nil: it may name none.
	SecretFiles map[string][]byte
	// Dir is the project directory; empty: that of the first file.
	Dir string
	// App is the name from -p or the argument; it wins over COMPOSE_PROJECT_NAME,
	// which wins over the file's.
	App      cluster.AppName
	Profiles []string          // empty: those of COMPOSE_PROFILES
	EnvFiles []string          // empty: those of COMPOSE_ENV_FILES, else .env in Dir, where there is one
	Env      map[string]string // wins over EnvFiles
	Domain   string            // default "localhost"
	// SingleNode allows what only works while there is one node.
	SingleNode          bool
	HTTPPort, HTTPSPort int // public ports of the gateways; 0 means 80 and 443
	// Tree is the directory that has a source which was fetched, a Git repository's: what is
	// below it is on no node. "": the files are on this machine to stay.
	Tree string
	// NoBuild takes images that are named for built already, whatever their build: says.
	NoBuild bool
}

// Document is a file in memory.
type Document struct {
	Name    string // as shown in problems
	Content []byte
}

// Result is what the files mean.
type Result struct {
	App      cluster.AppName
	Domain   string
	Services map[cluster.ServiceName]cluster.ServiceSpec
	Configs  []cluster.Config // sorted by name
	Secrets  []SecretDecl     // sorted by name
	Builds   []Build          // sorted by service
	Hooks    []cluster.Hook   // sorted by weight and name; of packages alone
	Warnings []Problem        // sorted by file and line
	// Rendered is the interpolated, merged document in YAML. No value of a secret is in it.
	Rendered []byte
	Files    []string // every file that was read as Compose, as shown in problems
}

// SecretDecl is a secret that the file declares.
type SecretDecl struct {
	Name     string // in the store, within the app
	External bool   // must be in the store, or be generated
	Generate int    // characters to generate when it is missing; 0: never
	Vault    string // where the value is in Vault; "": not there
	// Value comes from file: or environment:. HasValue is false where that was
	// missing; the store's value, if there is one, is used then.
	Value    cluster.Secret
	HasValue bool
	Source   cluster.Source
}

// Build says how to build a service's image.
type Build struct {
	Service          cluster.ServiceName
	Image            string // to tag the result with; the service's Image
	Context          string // absolute directory
	Dockerfile       string // absolute path; empty with DockerfileInline
	DockerfileInline string
	Target           string
	Args             map[string]*string // nil: the builder's environment
	Tags             []string           // further tags
	Platform         string
	Labels           map[string]string
	CacheFrom        []string
	ExtraHosts       []string // "name:ip"
	Network          string   // of RUN steps
	ShmSize          int64
	NoCache, Pull    bool
	Source           cluster.Source
}

// Here is what a directory says of the app that commands in it are about.
type Here struct {
	App      cluster.AppName
	Services []string
	// From is what names the app, "compose.yaml:1" or a variable; "" is the directory.
	From string
	// Err is why Load would refuse the file before it knew the app's name.
	Err error
}

// AppIn is the app that the Compose file in dir or above, by its usual name, describes,
// and its services: what Load would call them, as far as the file can be read.
// False: there is none.
func AppIn(dir string, env map[string]string) (Here, bool) {
	l, err := newLoader(Options{Dir: dir, Env: env})
	switch {
	case cluster.KindOf(err) == cluster.KindNotFound:
		return Here{}, false
	case err != nil:
		return Here{Err: err}, true
	}
	l.readMain()
	l.nameApp()
	names := serviceNames(slices.DeleteFunc(l.idx.docs, func(d *doc) bool { return d.base }))
	return Here{App: l.app, Services: names, From: l.named, Err: l.err()}, true
}

// Load reads Compose files. The error is *Problems when the files are refused.
func Load(ctx context.Context, o Options) (*Result, error) {
	l, err := newLoader(o)
	if err != nil {
		return nil, err
	}
	return l.load(ctx)
}
