package lab

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
	"github.com/fairlead/fairlead/store"
)

// lies says all that a stolen certificate lets somebody say of a node that would lead others
// astray: that its tasks are where another node's are, that another node's task has failed,
// that it is a server and a gateway, at another node's address. Nothing may come of it. Its
// machine is switched off; whoever has the certificate keeps it alive.
func (b *bed) lies(node string) {
	b.t.Helper()
	before := b.readySoon("demo", 3)
	mine, others := on(before, node), on(before, "n1")
	if len(mine) != 1 || len(others) != 1 {
		b.t.Fatalf("the tasks are at %+v", before)
	}
	victim := others[0]
	b.do("kill", node)
	thief := b.thief(node)
	defer thief.Close()
	b.says(thief, store.AliveKey(cluster.NodeID(node)), map[string]any{})

	key := store.StatusKey(cluster.NodeID(node), cluster.TaskID(mine[0].ID))
	lie := stored[cluster.Status](b, thief, key)
	for network := range lie.Addresses {
		lie.Addresses[network] = victim.Addresses[string(network)]
	}
	lie.Addresses["host"] = b.address("n1")
	b.says(thief, key, lie)
	lie.Task, lie.State, lie.Ready, lie.Reason = cluster.TaskID(victim.ID), cluster.StateFailed, false, "a lie"
	b.says(thief, store.StatusKey(cluster.NodeID(node), lie.Task), lie)
	key = store.NodeInfoKey(cluster.NodeID(node))
	info := stored[cluster.NodeInfo](b, thief, key)
	info.Roles, info.Address = []string{"server", "gateway", "agent"}, b.address("n1")
	b.says(thief, key, info)

	// What is done after it is decided with all of that. It waits for every gateway that there is.
	b.run("name: after\nservices:\n  web:\n" + image + `    expose: ["8080"]
    deploy: {placement: {constraints: [node.hostname != ` + node + "]}}\n    x-fairlead: {routes: [{host: after.example.com, port: 8080}]}\n")
	b.liesCameToNothing(node, victim)
	for range 20 {
		if _, err := b.answer("after.example.com"); err != nil {
			b.t.Error(err)
		}
	}
	if _, err := thief.Delete(b.t.Context(), store.AliveKey(cluster.NodeID(node))); err != nil {
		b.t.Fatal(err)
	}
	b.do("start", node)
	b.aliveSoon("n1 n2 n3")
	b.readySoon("demo", 3)
	b.served(3)
}

// liesCameToNothing looks for what a node said of itself where others go by it.
func (b *bed) liesCameToNothing(node string, victim taskRow) {
	b.t.Helper()
	root := b.rootStore()
	defer root.Close()
	all, err := root.Get(b.t.Context(), store.PrefixEndpoints, clientv3.WithPrefix())
	if err != nil {
		b.t.Fatal(err)
	}
	for _, kv := range all.Kvs {
		var e cluster.Endpoints
		if err := json.Unmarshal(kv.Value, &e); err != nil {
			b.t.Fatal(err)
		}
		for _, t := range e.Tasks {
			if t.Node == cluster.NodeID(node) && (slices.Contains(b.values(victim), t.Addresses["demo_default"]) || t.Host == b.address("n1")) {
				b.t.Errorf("%s leads to %+v", kv.Key, t)
			}
		}
	}
	if all, err = root.Get(b.t.Context(), store.TraefikRoot+"/", clientv3.WithPrefix()); err != nil {
		b.t.Fatal(err)
	}
	led := 0
	for _, kv := range all.Kvs {
		if slices.ContainsFunc(b.values(victim), func(a string) bool { return strings.Contains(string(kv.Value), "//"+a+":") }) {
			led++
		}
	}
	if led != 1 {
		b.t.Errorf("gateways are led to the task of n1 by %d keys", led)
	}
	if after := b.ps("demo"); !slices.ContainsFunc(after, func(t taskRow) bool { return t.ID == victim.ID && t.Ready && t.Container == victim.Container }) {
		b.t.Errorf("the task of n1, of which another node says that it failed: %+v of %+v", victim, after)
	}
	for _, n := range decode[[]struct {
		ID    string
		Alive bool
		Roles []string
	}](b, b.fairlead(b.t.Context(), "node", "ls", "-o", "json")) {
		if n.ID == node && (!n.Alive || slices.Contains(n.Roles, "server") || slices.Contains(n.Roles, "gateway")) {
			b.t.Errorf("%+v", n)
		}
	}
	for _, s := range b.servers() {
		if s.Node == node {
			b.t.Errorf("a server: %+v", s)
		}
	}
}

// values are the addresses of a task.
func (b *bed) values(t taskRow) (out []string) {
	b.t.Helper()
	for _, a := range t.Addresses {
		out = append(out, a)
	}
	if len(out) == 0 {
		b.t.Fatalf("%+v has no address", t)
	}
	return out
}

// thief is a client of n1's store with a node's certificate, from n1's network.
func (b *bed) thief(node string) *clientv3.Client {
	b.t.Helper()
	member, err := pki.OpenMember(b.disk(node, "fairlead", "pki"), time.Now)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.store("n1", "n1", member.TLS())
}

func (b *bed) says(c *clientv3.Client, key string, v any) {
	b.t.Helper()
	text, err := json.Marshal(v)
	if err == nil {
		_, err = c.Put(b.t.Context(), key, string(text))
	}
	if err != nil {
		b.t.Fatalf("%s: %v", key, err)
	}
}

func stored[T any](b *bed, c *clientv3.Client, key string) (v T) {
	b.t.Helper()
	got, err := c.Get(b.t.Context(), key)
	if err == nil && len(got.Kvs) == 0 {
		err = fmt.Errorf("there is no such key")
	}
	if err == nil {
		err = json.Unmarshal(got.Kvs[0].Value, &v)
	}
	if err != nil {
		b.t.Fatalf("%s: %v", key, err)
	}
	return v
}
