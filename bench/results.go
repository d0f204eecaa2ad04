package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// figure is a key of latest.json.
type figure struct {
	key, group string
	aim        string
	meaning    string
}

func figures() []figure {
	return []figure{
		{"deploy50_over_api", "deploy50", "≤ 1.15", "time from the start of `fairlead deploy` to 50 healthy replicas (the agent asks each over HTTP), over the time in which the Docker API alone creates and starts the same 50 containers, 8 at a time, with no health check; median of the pairs of one run, which take turns"},
		{"remove50_over_api", "deploy50", "", "time of `fairlead rm`, which stops 50 replicas with SIGTERM and waits until nothing is left, over the time in which the Docker API alone kills and removes 50 containers, 8 at a time; median, as above"},
		{"route_live_ms_p50", "route", "≤ 200", "milliseconds from when a new container serves (it says so in its log; the engine notes the time) to the first 200 through Traefik, asked every 4 ms; the agent's probe, the store, the registry and Traefik are in it; one new app after the other"},
		{"route_live_ms_p99", "route", "", "the same; with fewer than 100 samples it is the slowest"},
		{"rolling_requests", "rolling", "", "requests from outside, GET and POST, connections kept and not, 800 a second at most, during a rolling update of 10 replicas and 2 s after it"},
		{"rolling_failed", "rolling", "0", "those of them without a whole answer with status 200"},
		{"inside_requests", "rolling", "", "requests from a container to the service meanwhile: by name with connections kept and not, and to the address that the name had at the start"},
		{"inside_failed", "rolling", "0", "those of them that failed"},
		{"server_rss_mb", "idle", "≤ 60", "private memory (RssAnon + RssShmem) of `fairlead server`, all in one, nothing deployed, 50 s after its start; without Traefik, which is a process of its own"},
		{"server_vmrss_mb", "idle", "", "all resident memory of the same process at the same moment; most of the rest is the program file"},
		{"server_idle_cpu_percent", "idle", "≤ 1", "processor time of the same process over 30 s, in percent of one core"},
		{"server_rss_mb_50_tasks", "deploy50", "", "private memory of the server 20 s after 50 replicas became healthy"},
		{"binary_mb", "binary", "≤ 110", "size of the program, static and stripped"},
		{"corpus_planned", "corpus", "≥ 16", "files of the corpus of other people's Compose files that are planned completely, for one node"},
		{"corpus_refused_with_line", "corpus", "", "files of it that are refused, every refusal with file, line and key"},
		{"bad_inputs", "badinputs", "≥ 20", "rows of docs/bad-inputs.md, counted after the tests that hold them have passed"},
		{"helm_cases", "packages", "≥ 40", "cases of the chart language, dependencies, schemas and hooks that Helm's own library, used directly, and package `chart` render"},
		{"helm_cases_equal", "packages", "all", "those of them of which every file is the same, byte for byte, and every error"},
		{"package_kill_points", "packages", "≥ 30", "writes of a server, and requests that it makes of Git servers and registries, with which it is killed, before the write happens or after, the request unanswered or half answered, in installation, upgrade, rollback and removal of a package with hooks, also those that are taken back, and while an app follows its source (a first commit, a new one, a bad one that is gone back from, a change by hand): control plane and API on a store in memory, a node that stays, and a new server for the killed one"},
		{"package_kill_points_stuck", "packages", "0", "those of them after which the next server did not end the change as it was meant or undo it, ran a hook twice or not at all, or refused the next change"},
		{"push_to_served_s_p50", "delivery", "< 5 + container start", "seconds from the start of `git push` to the first answer of the new version, for an app of two replicas that follows a Git server over https; the webhook is sent when the push has ended, as forges do; median of ten versions, under load"},
		{"webhook_to_served_s_p50", "delivery", "< 5 + container start", "the same from the start of the webhook"},
		{"lab_image_push_to_served_s_p50", "labdelivery", "< 5 + container start", "seconds from the start of the push of an image to a registry to the first answer of its version through the last of two gateways, for an app of six replicas on three nodes of a lab: its tag is scanned, the version committed to Git, fetched from there and rolled out, all by itself; the registry's webhook comes by TLS when the push has ended; median of five versions, under load from outside and inside"},
		{"lab_image_webhook_to_served_s_p50", "labdelivery", "< 5 + container start", "the same from the start of the webhook"},
		{"delivery_bad_commits", "delivery", "", "commits between those versions that are never healthy: each is gone back from, and the next version comes after it"},
		{"delivery_requests", "delivery", "", "requests from outside meanwhile, as `rolling_requests`"},
		{"delivery_failed_requests", "delivery", "0", "those of them without a whole answer with status 200"},
		{"deliveries_200_ready_s", "delivery", "", "seconds in which 200 apps without replicas, of a directory each of a Git repository over https, are made to follow it, one command after the other, until all are ready"},
		{"deliveries_200_followed_s", "delivery", "", "seconds from one push that changes all of them until all are ready at its commit, looked at once a minute, without a webhook"},
		{"deliveries_200_cpu_percent", "delivery", "", "processor time of a server and of the processes that it starts, in percent of one core over three minutes, while 200 apps without replicas follow a directory each of a Git repository over https, looked at once a minute"},
		{"deliveries_200_rss_mb", "delivery", "", "private memory of that server, without the processes that it starts, which live for one look each, four at once"},
		{"deliveries_200_peak_mb", "delivery", "", "the most private memory that it and the processes that it starts had together at any of the moments, ten a second, of those three minutes; without Traefik"},
		{"deliveries_200_requests_per_minute", "delivery", "", "requests at that Git server"},
		{"lab_up_3_warm_s", "lab", "≤ 20", "seconds of `fairlead lab up --nodes 3`, each time a new lab, until it is ready; the program, Docker and Traefik are there; median of three"},
		{"agent_rss_mb", "lab", "≤ 30", "private memory (RssAnon + RssShmem) of `fairlead agent` on a node of a lab of three, nothing deployed, 20 s after the lab was ready"},
		{"agent_vmrss_mb", "lab", "", "all resident memory of the same process at the same moment; most of the rest is the program file"},
		{"agent_rss_mb_50_tasks", "lab", "", "the same process 20 s after 50 replicas on its node became healthy"},
		{"deploy60_three_nodes_over_api", "lab", "", "time from the start of `fairlead deploy` to 60 healthy replicas on three nodes of a lab, over the time in which the Docker APIs alone create and start 20 such containers on each of the same three engines, 8 at a time on each, with no health check; median of three pairs, which take turns"},
		{"cluster_rolling_requests", "lab", "", "requests from outside, as `rolling_requests`, during a rolling update of 12 replicas on three nodes of a lab"},
		{"cluster_rolling_failed", "lab", "0", "those of them without a whole answer with status 200"},
		{"cluster_inside_requests", "lab", "", "requests from a container to the service meanwhile, as `inside_requests`"},
		{"cluster_inside_failed", "lab", "0", "those of them that failed"},
		{"node_cut_to_replaced_s_p50", "swarm", "≤ 10", "seconds from when a node's cable is cut to when all replicas of a service of 6 are ready on the other two nodes; median of five, a node with replicas each time"},
		{"swarm_node_cut_to_replaced_s_p50", "swarm", "", "the same with Docker Swarm on the same three engines in the same run: until 6 of its tasks run on the other two; it is told of no health check"},
		{"deploy50_over_swarm", "swarm", "≤ 0.4", "time from the start of `fairlead deploy` to 50 healthy replicas on three nodes of a lab, on the app's own network with a service address, over the time from the start of `docker stack deploy` of the same file to 50 running tasks of Docker Swarm on the same engines, on the stack's own network, without a service address (`endpoint_mode: dnsrr`); median of three turns"},
		{"deploy50_over_swarm_no_network", "swarm", "", "the same over the time from the start of `docker service create`, whose tasks are on no network of their own"},
		{"leader_kills", "leaders", "", "how often the server that led the stores of a lab of three lost its power, while labels were written without a pause through the two others; then each server is cut off once"},
		{"leader_failover_s_p50", "leaders", "≤ 5", "seconds from the start of `fairlead lab kill` of the leader to the first write accepted after it through another server; median of the kills"},
		{"leader_acked_writes", "leaders", "", "writes that were accepted during the kills and the cuts"},
		{"leader_acked_writes_lost", "leaders", "0", "those of them that one of the three servers does not know in the end"},
		{"stolen_node_keys_reachable", "stolen", "0", "what the certificate of a node opens beyond its own: each key of the store of a lab in use is read, written and deleted with it, and everything read, users made, a snapshot taken and the like; its own are its placements, its sealed secrets, what it says of itself, and, to be read, endpoints, where the nodes' networks and the servers are"},
		{"image_push_second_over_first", "push", "", "time of `fairlead image push` of an image of 65 MiB to the three nodes of a lab, with its upper layer of 1 MiB changed since, over the time of its first push; the image is in the machine's engine, and made of what nothing packs; median of the pairs"},
		{"image_push_second_bytes_over_first", "push", "", "bytes that the same second pushes sent to the three nodes, over those of the first"},
		{"demo_cold_s", "demo -demo-cold", "", "seconds of `make demo` with empty caches: Go modules fetched, everything built, Traefik included. Go and Docker are there"},
		{"demo_warm_s", "demo", "", "seconds of `make demo` on a machine on which it ran before, from no server to the shop's answer"},
	}
}

const (
	tableStart = "<!-- figures: written by go run ./bench -->\n"
	tableEnd   = "<!-- end of figures -->\n"
)

// save replaces the measured keys in latest.json, and says in README.md when and
// where that was.
func save(root string, measured map[string]float64, machine string, now time.Time) error {
	if len(measured) == 0 {
		return nil
	}
	latest := filepath.Join(root, "bench", "results", "latest.json")
	all := map[string]float64{}
	b, err := os.ReadFile(latest)
	if err == nil {
		err = json.Unmarshal(b, &all)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", latest, err)
	}
	maps.Copy(all, measured)
	if b, err = json.MarshalIndent(all, "", "  "); err != nil { // sorted by key
		return err
	}
	if err := replace(latest, append(b, '\n')); err != nil {
		return err
	}
	readme := filepath.Join(root, "bench", "README.md")
	text, err := os.ReadFile(readme)
	if err != nil {
		return err
	}
	out, err := retable(string(text), measured, machine, now)
	if err != nil {
		return fmt.Errorf("%s: %w", readme, err)
	}
	return replace(readme, []byte(out))
}

// replace writes a file in one step: one that is half written would be lost to the next run.
func replace(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", content, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// retable writes the table of a README anew. Rows of keys that were not measured
// now keep their machine and date.
func retable(text string, measured map[string]float64, machine string, now time.Time) (string, error) {
	head, rest, ok := strings.Cut(text, tableStart)
	old, tail, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		return "", errors.New("the marks around the table are gone")
	}
	last := map[string][]string{} // by key: the cells
	for l := range strings.Lines(old) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(l), "|"), "|")
		if len(cells) == 6 {
			last[strings.Trim(cells[0], " `")] = cells
		}
	}
	var b strings.Builder
	b.WriteString(head + tableStart + "| key | aim | meaning | command | machine | date |\n|---|---|---|---|---|---|\n")
	for _, f := range figures() {
		on, at := "", "not measured yet"
		if cells, ok := last[f.key]; ok {
			on, at = strings.TrimSpace(cells[4]), strings.TrimSpace(cells[5])
		}
		if _, ok := measured[f.key]; ok {
			on, at = strings.ReplaceAll(machine, "|", "/"), now.UTC().Format(time.DateOnly)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | `go run ./bench -only %s` | %s | %s |\n", f.key, f.aim, f.meaning, f.group, on, at)
	}
	for _, key := range slices.Sorted(maps.Keys(measured)) {
		if !slices.ContainsFunc(figures(), func(f figure) bool { return f.key == key }) {
			return "", fmt.Errorf("nothing says what %s means", key)
		}
	}
	return b.String() + tableEnd + tail, nil
}
