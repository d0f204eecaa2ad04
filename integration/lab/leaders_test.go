package lab

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/client"
	"github.com/fairlead/fairlead/integration/load"
	"github.com/fairlead/fairlead/integration/quorum"
)

// Three servers, whose leader loses its power ten times, and each of which is cut off
// once, while writes and requests go on. Every write that was accepted is there
// afterwards, and no request fails but through the gateway of the node that is hit. What
// serves is on a fourth node: a task that is lost with its node is another test's.
func TestLeadersUnderLoad(t *testing.T) {
	onEngines(t, []string{"--nodes", "4", "--servers", "3", "--gateways", "4"}, leadersUnderLoad)
}

func leadersUnderLoad(b *bed) {
	t := b.t
	servers := []string{"n1", "n2", "n3"}
	b.aliveSoon("n1 n2 n3 n4")
	b.deployAt("n4", 3)
	gates := map[string]gate{}
	for i, g := range b.gates() {
		gates[fmt.Sprintf("n%d", i+1)] = g
	}
	if len(gates) != 4 {
		t.Fatalf("gateways %v", gates)
	}
	through := map[string]*load.Load{}
	for node, g := range gates {
		g.serves()
		through[node] = load.Start(t, g.client, []load.Request{
			{Name: "GET kept", Method: http.MethodGet, URL: "http://demo.example.com/", KeepAlive: true},
			{Name: "POST new", Method: http.MethodPost, URL: "http://demo.example.com/", Body: "hello"},
		})
	}
	clients := map[string]*client.Client{}
	for _, n := range servers {
		clients[n] = b.api(n)
	}
	w := quorum.New("n4", clients)
	hit := map[string][]load.Span{}

	// harmed writes while a server is harmed, until it votes and its gateway serves again.
	harmed := func(node, harm, mend string) time.Duration {
		t.Helper()
		then := time.Now()
		took, err := w.Without(t.Context(), node, func() error {
			out, err := b.try(harm, node)
			if err != nil {
				err = fmt.Errorf("%s %s: %w: %s", harm, node, err, out)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		b.do(mend, node)
		gates[node].serves()
		hit[node] = append(hit[node], since(then))
		return took.Round(10 * time.Millisecond)
	}
	voters := func() string {
		t.Helper()
		leader, err := w.Voters(t.Context(), 3*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return leader
	}
	var killed, cut []string
	for range 10 {
		leader := voters()
		killed = append(killed, fmt.Sprintf("%s %s", leader, harmed(leader, "kill", "start")))
	}
	for _, n := range servers {
		voters()
		cut = append(cut, fmt.Sprintf("%s %s", n, harmed(n, "cut", "heal")))
	}
	voters()
	t.Logf("to the first accepted write: leaders killed %s; servers cut off %s", strings.Join(killed, ", "), strings.Join(cut, ", "))
	lost, err := w.Lost(t.Context())
	if err != nil || len(lost) > 0 {
		t.Errorf("of %d writes that were accepted %d are lost: %v %v", w.Acked(), len(lost), lost, err)
	}
	t.Logf("%d writes were accepted", w.Acked())
	for node, l := range through {
		l.WantNone(t, "ten leaders killed and three servers cut off, through "+node+"'s gateway", hit[node]...)
	}
	if got := b.rows("web"); len(got) != 3 {
		t.Errorf("afterwards %v", got)
	}
}
