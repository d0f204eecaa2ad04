package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/integration/follow"
)

// TestDeliveriesInOrder lets two apps follow a repository, the one after the other: what it
// depends on never becomes healthy at first, and nothing of it is there. What is changed by hand of
// the second is said, and left until a commit of it comes; one of both comes to the first one first.
func TestDeliveriesInOrder(t *testing.T) {
	n := start(t)
	image := n.image()
	f, news := follow.NewForge(t, n.dir), follow.NewInbox(t)
	base := func(version string, env string) {
		t.Helper()
		content := strings.Replace(web(image, "base", version, 1, ""), `VERSION: "`+version+`"`, `VERSION: "`+version+`"`+env, 1)
		if err := f.Write("base/compose.yaml", content); err != nil {
			t.Fatal(err)
		}
	}
	n.secret("base/git", f.Password)
	n.secret("pub/git", f.Password)
	base("1", ", BROKEN: health")
	f.Publish(web(image, "pub", "1", 1, ""), "a base that is never healthy")
	follows := []string{f.URL, "--secret", "git", "--ca", f.CA, "--branch", "main", "--interval", "5s", "--detach", "--notify", news.URL}
	n.do(append([]string{"delivery", "create", "base", "--path", "base"}, follows...)...)
	n.do(append([]string{"delivery", "create", "pub", "--depends-on", "base", "--drift", "report"}, follows...)...)

	n.eventually(2*time.Minute, "the base fails", func() error { return news.Has(`"delivery":"base"`, `"event":"failed"`) })
	if st := n.state("pub"); st.Phase != cluster.PhaseWaiting || !strings.Contains(st.Message, "waits for base") || st.Seen != nil {
		t.Errorf("meanwhile it is %s: %s", st.Phase, st.Message)
	}
	if out := n.do("ls"); strings.Contains(out, "pub") {
		t.Errorf("and there is an app of it:\n%s", out)
	}
	base("2", "")
	head := f.Publish(web(image, "pub", "1", 1, ""), "a base that is")
	n.eventually(2*time.Minute, "the base", n.delivered("base", "ready", head, "2"))
	n.eventually(2*time.Minute, "what depends on it", n.delivered("pub", "ready", head, "1"))

	out := n.do("deploy", "-f", n.write("compose.yaml", web(image, "pub", "by hand", 1, "")))
	if !strings.Contains(out, "says how it differs from its source at its next look") {
		t.Errorf("a change by hand is answered with\n%s", out)
	}
	n.eventually(time.Minute, "it is said", n.delivered("pub", "drifted", head, "by hand"))
	n.eventually(time.Minute, "it was told", func() error { return news.Has(`"delivery":"pub"`, `"event":"drift"`, "task.env.VERSION") })
	for _, args := range [][]string{{"delivery", "describe", "pub"}, {"status", "pub"}, {"status", "--cluster"}} {
		if out, _ := n.try(args...); !strings.Contains(out, "differs from the source in 1") {
			t.Errorf("%v says\n%s", args, out)
		}
	}
	if out, err := n.try("delivery", "diff", "pub", "--exit-code"); exitCode(err) != 10 || !strings.Contains(out, "env.VERSION") {
		t.Errorf("diff exits with %v:\n%s", err, out)
	}
	checks := n.state("pub").Checks
	n.eventually(time.Minute, "it is looked at again", func() error {
		if now := n.state("pub").Checks; now < checks+2 {
			return fmt.Errorf("%d times after %d", now, checks)
		}
		return n.delivered("pub", "drifted", head, "by hand")()
	})
	if err := f.Write("README.md", "words\n"); err != nil {
		t.Fatal(err)
	}
	elsewhere := f.Publish(web(image, "pub", "1", 1, ""), "words")
	n.eventually(time.Minute, "a commit elsewhere leaves it alone", func() error {
		if st := n.state("pub"); st.Seen.Revision != elsewhere {
			return fmt.Errorf("it has seen %s", st.Seen.Revision)
		}
		return n.delivered("pub", "drifted", head, "by hand")()
	})

	// A commit of both comes to the second when the first is healthy at it, and not before.
	base("3", ", BROKEN: health")
	both := f.Publish(web(image, "pub", "2", 1, ""), "a commit of both")
	n.eventually(2*time.Minute, "the base fails again", func() error {
		if st := n.state("base"); st.Phase != cluster.PhaseFailed || st.Applied.Origin.Revision != both {
			return fmt.Errorf("it is %s: %s", st.Phase, st.Message)
		}
		return nil
	})
	if st := n.state("pub"); st.Phase != cluster.PhaseWaiting || !strings.Contains(st.Message, "waits for base") || st.Applied.Origin.Revision != head {
		t.Errorf("meanwhile it is %s at %s: %s", st.Phase, st.Applied.Origin.Revision, st.Message)
	}
	base("4", "")
	next := f.Publish(web(image, "pub", "2", 1, ""), "a good base")
	n.eventually(2*time.Minute, "the commit is deployed over what was changed", n.delivered("pub", "ready", next, "2"))
	if err := n.delivered("base", "ready", next, "4")(); err != nil {
		t.Error(err)
	}
}
