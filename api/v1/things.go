package v1

import (
	"strings"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// SecretSummary is a secret without its value.
type SecretSummary struct {
	cluster.SecretRef
	Version   int                   `json:"version"`
	Created   time.Time             `json:"created"`
	By        string                `json:"by,omitempty"`
	Provider  string                `json:"provider"`      // sealed or vault
	Ref       string                `json:"ref,omitempty"` // where the value is in Vault
	Generated bool                  `json:"generated,omitempty"`
	Services  []cluster.ServiceName `json:"services,omitempty"` // that use it
	// Missing: services use it but it was never set; their tasks wait.
	Missing bool `json:"missing,omitempty"`
}

// SecretSet sets a value, generates one of Generate characters, or says where in
// Vault it is (MOUNT/PATH#FIELD).
type SecretSet struct {
	Value    Plain  `json:"value,omitempty"`
	Generate int    `json:"generate,omitempty" minimum:"0" maximum:"4096"`
	Vault    string `json:"vault,omitempty" maxLength:"1024"`
}

// SecretResult says what setting a secret did.
type SecretResult struct {
	SecretSummary
	// Release that rolls the new value out to the services that use it; 0: none uses it.
	Release int `json:"release,omitempty"`
}

// CertAdd is a certificate chain and its private key, both PEM.
type CertAdd struct {
	Chain string `json:"chain" minLength:"1" maxLength:"262144"`
	Key   Plain  `json:"key" minLength:"1"`
}

// CertSummary is a certificate without its key.
type CertSummary struct {
	Name      string    `json:"name"`
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Hosts     []string  `json:"hosts"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Added     time.Time `json:"added"`
	By        string    `json:"by,omitempty"`
	// Warning says that it has expired or soon will, or that nothing uses it.
	Warning string `json:"warning,omitempty"`
}

// CertRecord is what the store keeps of a certificate: the key is sealed with
// the context CertContext(Name).
type CertRecord struct {
	Name      string    `json:"name"`
	Chain     string    `json:"chain"`
	Sealed    []byte    `json:"sealed"`
	Hosts     []string  `json:"hosts,omitempty"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Added     time.Time `json:"added"`
	By        string    `json:"by,omitempty"`
}

// RegistryLogin are credentials of an image registry.
type RegistryLogin struct {
	Host     string `json:"host" minLength:"1" maxLength:"255"`
	Username string `json:"username" minLength:"1" maxLength:"1024"`
	Password Plain  `json:"password" minLength:"1"`
}

// RegistrySummary is a login without its password.
type RegistrySummary struct {
	Host     string    `json:"host"`
	Username string    `json:"username"`
	Added    time.Time `json:"added"`
	By       string    `json:"by,omitempty"`
}

// RegistryRecord is what the store keeps of a login: the password is sealed with
// the context RegistryContext(Host).
type RegistryRecord struct {
	Host     string    `json:"host"`
	Username string    `json:"username"`
	Sealed   []byte    `json:"sealed"`
	Added    time.Time `json:"added"`
	By       string    `json:"by,omitempty"`
}

// CertContext is what a certificate's key is sealed with.
func CertContext(name string) string { return "cert/" + name }

// RegistryContext is what a registry's password is sealed with.
func RegistryContext(host string) string { return "registry/" + host }

// NodeImage is an image and where it is.
type NodeImage struct {
	cluster.Image
	Node cluster.NodeID `json:"node"`
	// Used names the services whose current version runs it.
	Used []string `json:"used,omitempty"`
}

// BuildOptions say how to build an image from a context sent as tar.
type BuildOptions struct {
	App        cluster.AppName     `json:"app"`
	Service    cluster.ServiceName `json:"service"`
	Node       cluster.NodeID      `json:"node,omitempty"` // "" lets the server choose
	Dockerfile string              `json:"dockerfile,omitempty"`
	Target     string              `json:"target,omitempty"`
	Args       map[string]*string  `json:"args,omitempty"`
	Labels     map[string]string   `json:"labels,omitempty"`
	Platform   string              `json:"platform,omitempty"`
	Pull       bool                `json:"pull,omitempty"`
	NoCache    bool                `json:"no_cache,omitempty"`
	Network    string              `json:"network,omitempty"`
	ExtraHosts []string            `json:"extra_hosts,omitempty"`
	ShmSize    int64               `json:"shm_size,omitempty"`
	CacheFrom  []string            `json:"cache_from,omitempty"`
	// Tags are further tags; the image always gets BuildTag's.
	Tags []string `json:"tags,omitempty"`
}

// BuildEvent is one line of a build's answer: text, then at the end a result or an error.
type BuildEvent struct {
	Text   string       `json:"text,omitempty"`
	Result *BuildResult `json:"result,omitempty"`
	Error  *Problem     `json:"error,omitempty"`
}

// BuildResult is the image that a build made.
type BuildResult struct {
	ID   string         `json:"id"`
	Ref  string         `json:"ref"`
	Node cluster.NodeID `json:"node"`
	// Copy is absent where no other node takes tasks.
	Copy *BuildCopy `json:"copy,omitempty"`
}

// BuildCopy is a second node that has a built image, so that the builder may be lost:
// what was built is in no registry.
type BuildCopy struct {
	Node  cluster.NodeID `json:"node,omitempty"`  // "": there is none
	Bytes int64          `json:"bytes"`           // sent to it
	Error string         `json:"error,omitempty"` // why there is none
}

// BuildTag is the tag of a built image: "fairlead/<app>-<service>:<first 12 of its ID>".
// Docker takes no capitals in a repository's name and no separator at its end.
func BuildTag(app cluster.AppName, service cluster.ServiceName, id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	name := strings.ToLower(strings.ReplaceAll(string(app)+"-"+string(service), "_", "-"))
	return "fairlead/" + strings.TrimRight(name, "-") + ":" + id[:min(12, len(id))]
}
