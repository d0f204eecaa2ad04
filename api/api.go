package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/api/plan"
	v1 "github.com/fairlead/fairlead/api/v1"
	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/secrets"
	"github.com/fairlead/fairlead/store"
)

// Config is what the API works on.
type Config struct {
	Store  store.Store   // guarded as store.WriterAPI
	Mirror *store.Mirror // of store.Root, running
	Hosts  Hosts
	Keeper secrets.Keeper
	// Resolver tells whether a secret's value changes; nil: every value set is new.
	Resolver secrets.Resolver
	// CA is the fingerprint of the authority that signed the server's certificate.
	CA string
	// URL is where other machines reach the API; "" where none does.
	URL string
	// Node is the name of the server that answers.
	Node    cluster.NodeID
	Now     func() time.Time
	Log     hclog.Logger
	Version string
	Cluster string
	// Domain is the default for route hosts: <service>.<app>.<domain>.
	Domain string
	// Alarms says what is wrong with the store itself; may be nil.
	Alarms func() []string
	// Stale is for how long the store has not confirmed what Mirror holds, 0 while what is
	// answered is current; nil: it always is.
	Stale func() time.Duration
	// Entry are the ports of the gateways' entry points.
	Entry plan.EntryPoints
	// Ranges are the cluster's: a machine that has addresses of them does not join.
	Ranges []cluster.Range
	// Admission lets nodes join; nil: none can.
	Admission Admission
	// Servers are the cluster's servers; nil: they cannot be changed.
	Servers Servers
	// Images finds an image on another node than the one that asks, as the engine's tar.
	// Unless the whole is asked for, the layers that the one that asks has may be absent.
	Images func(ctx context.Context, asks cluster.NodeID, ask cluster.ImageAsk) (cluster.ImageSent, error)
	// Sources fetches what deliveries bring, for a look without a deploy; nil: none can.
	Sources Sources
	// Logins opens the login of an image registry; empty when there is none.
	Logins func(ctx context.Context, registry string) (user, password string, err error)
	// Preview says what would wait, were an app these services with these counts;
	// nil: nobody says.
	Preview func(app cluster.AppName, services []cluster.Service, scales []cluster.Scale) []cluster.Wait
}

// Validate says what is missing.
func (c Config) Validate() error {
	if c.Store == nil || c.Mirror == nil || c.Hosts == nil || c.Keeper == nil || c.Now == nil || c.Log == nil {
		return errors.New("api: store, mirror, hosts, keeper, now and log are needed")
	}
	return nil
}

// Server answers requests. Make it with New.
type Server struct {
	Config
	handler http.Handler
	doc     *huma.OpenAPI
}

// New makes the handler of the whole API.
func New(c Config) (*Server, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c.Log = c.Log.Named("api")
	s := &Server{Config: c}
	mux := http.NewServeMux()
	api := humago.New(mux, humaConfig(c.Version))
	s.doc = api.OpenAPI()
	s.register(api)
	takeEmptyFiles(s.doc.Components.Schemas)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if allowed := methods(mux, r); len(allowed) > 0 {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			writeProblem(w, newProblem(http.StatusMethodNotAllowed, cluster.KindInvalid,
				r.URL.Path+" takes "+strings.Join(allowed, ", ")+" and no "+r.Method+"; /openapi.json lists what the API has"))
			return
		}
		writeProblem(w, newProblem(http.StatusNotFound, cluster.KindNotFound,
			"the API has no "+r.Method+" "+r.URL.Path+"; /openapi.json lists what it has"))
	})
	s.handler = s.authenticated(mux)
	return s, nil
}

// takeEmptyFiles lets the content of a config be empty, which huma's own pattern for
// base64 does not. What is no base64 the decoder refuses.
func takeEmptyFiles(reg huma.Registry) {
	bundle := reg.SchemaFromRef(schemaOf[v1.Bundle](reg).Ref)
	if content, is := bundle.Properties["configs"].AdditionalProperties.(*huma.Schema); is {
		content.ContentEncoding, content.Format = "", "byte"
	}
}

// methods are those that the path of a request that nothing else takes has. The mux
// would know, but for the pattern that takes all, whose answers are problems.
func methods(mux *http.ServeMux, r *http.Request) (out []string) {
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		other := r.Clone(r.Context())
		other.Method = m
		if _, pattern := mux.Handler(other); pattern != "/" {
			out = append(out, m)
		}
	}
	return out
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// OpenAPI is the description of the API, as JSON.
func (s *Server) OpenAPI() ([]byte, error) { return s.doc.MarshalJSON() }

func humaConfig(version string) huma.Config {
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Fairlead", Version: version,
				Description: "Deploy, route, scale and update containers on Docker hosts. Errors are RFC 9457 problems.",
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				Headers: staleDocs(),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"token": {Type: "http", Scheme: "bearer", Description: "not needed on the local socket"},
				},
			},
			Security: []map[string][]string{{"token": {}}},
		},
		OpenAPIPath:   "/openapi",
		Formats:       map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{asProblem},

		RejectUnknownQueryParameters: true,
	}
}

type whoKey struct{}

// Trusted marks a connection's context as that of a caller who needs no token:
// the server does it for its local socket (http.Server.ConnContext).
func Trusted(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, whoKey{}, who)
}

// who is who asks.
func who(ctx context.Context) string {
	w, _ := ctx.Value(whoKey{}).(string)
	return w
}

// authenticated lets in trusted connections, tokens that the store knows, and
// anyone who asks for health, the API's description, or to join with a token.
// What nodes ask is for nodes alone.
func (s *Server) authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, nodePrefix) {
			if b, ok := s.asNode(r); ok {
				ctx := context.WithValue(Trusted(r.Context(), "node "+string(b.Node)), nodeKey{}, b)
				next.ServeHTTP(w, r.WithContext(ctx))
				return
			}
			if !s.hasRead() {
				writeProblem(w, newProblem(http.StatusServiceUnavailable, cluster.KindTransient, notRead))
				return
			}
			writeProblem(w, newProblem(http.StatusForbidden, cluster.KindForbidden, "the certificate of a node of this cluster is needed; this one's was removed, or it never joined"))
			return
		}
		_, trusted := r.Context().Value(whoKey{}).(string)
		about := r.URL.Path == "/v1/health" || strings.HasPrefix(r.URL.Path, "/openapi")
		about = about || trusted && r.URL.Path == "/v1/status"
		if !about && !s.hasRead() {
			writeProblem(w, newProblem(http.StatusServiceUnavailable, cluster.KindTransient, notRead))
			return
		}
		s.markStale(w.Header(), r.URL.Path)
		open := about || r.URL.Path == joinPath || r.URL.Path == joinServerPath || strings.HasPrefix(r.URL.Path, hooksPrefix)
		if trusted || open {
			next.ServeHTTP(w, r)
			return
		}
		token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if bearer && token != "" {
			if name, ok := s.tokenName(token); ok {
				if s.Servers != nil {
					w.Header().Set(v1.HeaderServers, strings.Join(s.Servers.Addresses(), ","))
				}
				next.ServeHTTP(w, r.WithContext(Trusted(r.Context(), name)))
				return
			}
		}
		msg := "a token is needed: add this server with `fairlead context add`"
		if bearer {
			msg = "the token is not valid here: renew it with `fairlead context add`"
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="fairlead"`)
		writeProblem(w, newProblem(http.StatusUnauthorized, cluster.KindForbidden, msg))
	})
}

// markStale says in an answer's header that it may be old, and for how long. Nothing is
// asked for it: that would be a request to the store before each answer.
func (s *Server) markStale(h http.Header, path string) {
	if s.Stale == nil || path == "/v1/health" || strings.HasPrefix(path, "/openapi") {
		return
	}
	if d := s.Stale(); d > 0 {
		h.Set(v1.HeaderStale, strconv.Itoa(int(d/time.Second)))
		h.Set(v1.HeaderStaleServer, string(s.Node))
	}
}

const notRead = "this server has not read its store yet: it is starting, or most of the servers do not answer"

// hasRead reports whether the store was read: until then nothing is known, and
// nobody is to be told that something is not there.
func (s *Server) hasRead() bool {
	select {
	case <-s.Mirror.Ready():
		return true
	default:
		return false
	}
}

type answer[T any] struct{ Body T }

// nothing is the body of an answer that says all by its status: an empty object.
type nothing struct{}

// bodyTime bounds how long a client may take to send a request's JSON.
const bodyTime = 2 * time.Minute

// op describes an operation. Path is below /v1.
func op(method, path, id, tag, summary string) huma.Operation {
	return huma.Operation{
		Method: method, Path: "/v1" + path, OperationID: id, Tags: []string{tag}, Summary: summary,
		MaxBodyBytes: v1.MaxRequest, BodyReadTimeout: bodyTime,
	}
}

// handle registers an operation that answers with T as JSON.
func handle[I, T any](api huma.API, o huma.Operation, f func(ctx context.Context, in *I) (T, error)) {
	addProblem(api, &o)
	if o.Method == http.MethodGet {
		o.Responses["200"] = &huma.Response{Headers: staleHeaders()}
	}
	huma.Register(api, o, func(ctx context.Context, in *I) (*answer[T], error) {
		v, err := f(ctx, in)
		if err != nil {
			return nil, problemOf(err)
		}
		return &answer[T]{Body: v}, nil
	})
}

// staleHeaders are the headers of what is read.
func staleHeaders() map[string]*huma.Param {
	out := map[string]*huma.Param{}
	for name := range staleDocs() {
		out[name] = &huma.Param{Ref: "#/components/headers/" + name}
	}
	return out
}

// staleDocs documents what marks an answer as old.
func staleDocs() map[string]*huma.Header {
	zero := 0.0
	return map[string]*huma.Header{
		v1.HeaderStale: {
			Description: "only where the answer may be old: for how many seconds the server has not heard from a majority. Another server may be current",
			Schema:      &huma.Schema{Type: huma.TypeInteger, Minimum: &zero},
		},
		v1.HeaderStaleServer: {
			Description: "with " + v1.HeaderStale + ": the name of the server that answers",
			Schema:      &huma.Schema{Type: huma.TypeString},
		},
	}
}

// addProblem documents errors as our problems.
func addProblem(api huma.API, o *huma.Operation) {
	if o.Responses == nil {
		o.Responses = map[string]*huma.Response{}
	}
	reg := api.OpenAPI().Components.Schemas
	o.Responses["default"] = &huma.Response{
		Description: "What was wrong, and what to do about it",
		Content:     map[string]*huma.MediaType{problemType: {Schema: schemaOf[v1.Problem](reg)}},
	}
}
