// Command bench measures the figures that are kept in bench/results/latest.json.
//
//	go run ./bench                  every figure but demo_cold_s; needs root and Docker
//	go run ./bench -only deploy50   one group; -list names them
//
// Only the keys measured in this run are replaced. What a key means, and when and
// where it was measured last, is in bench/README.md, which this command writes too.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// group is figures that are measured together.
type group struct {
	name    string
	measure func(context.Context, *bench) error
	root    bool // needs root and Docker
}

func groups() []group {
	return []group{
		{"binary", measureBinary, false},
		{"corpus", measureCorpus, false},
		{"badinputs", measureBadInputs, true},
		{"packages", measurePackages, false},
		{"idle", measureIdle, true},
		{"deploy50", measureDeploy, true},
		{"route", measureRoute, true},
		{"rolling", measureRolling, true},
		{"delivery", measureDelivery, true},
		{"labdelivery", measureLabDelivery, true},
		{"lab", measureLab, true},
		{"swarm", measureSwarm, true},
		{"leaders", measureLeaders, true},
		{"stolen", measureStolen, true},
		{"push", measurePush, true},
		{"demo", measureDemo, true},
	}
}

// options are how much is measured; fewer pairs and samples are for development.
type options struct {
	only           string
	pairs, samples int
	demoCold       bool
	dry, list      bool
	walk           string // see stolen.go
}

func main() {
	var o options
	flag.StringVar(&o.only, "only", "", "comma-separated `groups` to measure; empty: all")
	flag.IntVar(&o.pairs, "pairs", 5, "pairs of runs that a ratio is the median of")
	flag.IntVar(&o.samples, "samples", 40, "samples of how soon a route is live")
	flag.BoolVar(&o.demoCold, "demo-cold", false, "also measure demo_cold_s: everything is fetched and built again into an empty cache, for many minutes")
	flag.BoolVar(&o.dry, "n", false, "print the figures, write nothing")
	flag.BoolVar(&o.list, "list", false, "list the groups")
	flag.StringVar(&o.walk, "walk", "", "used by this command itself, in the network of a lab's node")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop was called
	}
}

func run(ctx context.Context, o options) error {
	if o.walk != "" {
		return walk(ctx, o.walk, os.Stdout)
	}
	if o.list {
		for _, g := range groups() {
			fmt.Println(g.name)
		}
		return nil
	}
	chosen, err := choose(groups(), o.only)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 && slices.ContainsFunc(chosen, func(g group) bool { return g.root }) {
		return errors.New("most figures need root: sudo make bench, or -only binary,corpus")
	}
	b, err := newBench(o)
	if err != nil {
		return err
	}
	defer b.close()
	var failed []string
	for _, g := range chosen {
		if ctx.Err() != nil {
			break
		}
		began := time.Now()
		b.say("%s (load of the machine: %s)", g.name, loadAverage())
		b.measured = map[string]float64{}
		if err := g.measure(ctx, b); err != nil {
			failed = append(failed, g.name)
			fmt.Fprintf(os.Stderr, "error: %s: %v\n", g.name, err)
			continue
		}
		b.say("%s took %s", g.name, time.Since(began).Round(time.Second))
		if o.dry {
			continue
		}
		// Saved after each group: one that fails later takes nothing away.
		if err := save(b.root, b.measured, b.machine, time.Now()); err != nil {
			return err
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("not measured: %s", strings.Join(failed, ", "))
	}
	if len(b.left) > 0 {
		return fmt.Errorf("not everything could be removed; see above, and %s", b.dir)
	}
	return context.Cause(ctx) // which signal, if one came
}

func choose(all []group, only string) ([]group, error) {
	if only == "" {
		return all, nil
	}
	var out []group
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(all, func(g group) bool { return g.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("no group is named %q: -list names them", name)
		}
		out = append(out, all[i])
	}
	return out, nil
}
