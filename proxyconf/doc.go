// Package proxyconf turns endpoints and routes into the key/value pairs that
// Traefik's etcd provider reads.
//
// Traefik decodes the whole tree at once and keeps its old configuration for
// everything, silently, when one pair does not decode. So every pair, those that
// carry what users wrote above all, is checked against the part of Traefik's
// vocabulary that is known here (schema.go, middleware.go, rule.go); what does
// not pass is left out with its route, and the refusal is a result.
//
// Invariants:
//   - Plan is pure: its output does not depend on the order of its input, and a
//     second plan after applying the first changes nothing.
//   - Names are scoped: an object of service web of app shop is "shop_web-…".
//     An app cannot name, and so not change, another app's objects.
//   - Of two apps that claim the same place, that of the older service has it,
//     whatever the priorities. Within an app priorities decide among rules of one
//     class, as in Traefik, and only two with the same one clash.
//   - What Check passes is rendered: whoever takes services in asks it first.
//   - A route whose service has no ready endpoint keeps its router: 503, not 404.
//   - Only differences are written. One change fits one transaction when it can;
//     else objects are added before what refers to them and removed after it, so
//     that every step is valid, and the revision marker comes last.
//   - The marker never runs ahead: it carries a store revision whose endpoints,
//     of every service with routes or ports (or that just lost them), the tree
//     has, and is written again whenever such endpoints change, even when the
//     tree does not.
package proxyconf
