package api

import "github.com/danielgtaylor/huma/v2"

//go:generate go test . -run TestOpenAPIIsTheOneInDocs -update

// register adds every operation.
func (s *Server) register(api huma.API) {
	s.registerState(api)
	s.registerDeploy(api)
	s.registerPackages(api)
	s.registerHooks(api)
	s.registerWatch(api)
	s.registerLogs(api)
	s.registerInside(api)
	s.registerSecrets(api)
	s.registerCerts(api)
	s.registerNodes(api)
	s.registerJoin(api)
	s.registerServers(api)
	s.registerTokens(api)
	s.registerDeliveries(api)
}
