// Package dns answers the names of services to the containers of one node, on
// the address of each bridge, and forwards everything else to the node's own
// resolvers.
//
// Names, for a service web of app shop, as its callers see them:
//
//	web, web.shop, shop_web   the service address (the tasks with dnsrr)
//	an alias, alias.shop      the same, on the networks that it was given on
//	tasks.web, tasks.web.shop the addresses of the ready tasks
//	web.2, web.2.shop         the address of one slot
//
// Invariants:
//   - Answer is pure: a zone, a client and a question in, an answer out.
//   - A client learns of a service only when both are on one network, and is
//     told addresses on that network only.
//   - Single-label names and the addresses of the cluster are never forwarded.
//   - A client without a way out, on internal networks alone, has none by names.
//   - A client whose service names servers of its own gets nothing from the node's
//     resolvers: its container asks its servers, from where it stands.
//   - Only clients of this node's container networks get answers.
package dns
