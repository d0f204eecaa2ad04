package cli

import (
	"strings"
	"testing"
)

func TestNoServer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path, env string
		demo      bool
		says, not string
	}{
		{defaultSocket, "", false, "system install", "FAIRLEAD_SOCKET"},
		{defaultSocket, "", true, "`export FAIRLEAD_SOCKET=" + demoSocket + "`", "unset"},
		{"/x", "/x", true, "FAIRLEAD_SOCKET is set to this socket", "demo"},
		{"/x", "/y", false, "no server listens there", "FAIRLEAD_SOCKET"},
		{demoSocket, "", true, "no server listens there", "export"},
	} {
		if got := noServer(c.path, c.env, c.demo); !strings.Contains(got, c.says) || strings.Contains(got, c.not) {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
