package server

import (
	"context"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fairlead/fairlead/cluster"
	"github.com/fairlead/fairlead/pki"
)

const (
	// clockEvery is how often the clock is compared with the certificates.
	clockEvery = 5 * time.Second
	// renewEvery is how often all that certificates should be is compared with what they are.
	renewEvery = 12 * time.Hour
	// renewPause is how long a certificate that came out no better is left alone, in looks.
	renewPause = int(10 * time.Minute / clockEvery)
)

// awaitClock waits, on a machine that has no certificates yet, until its clock may be
// right: by one that was never set they would be made in vain. One that has some starts
// what it ran, whatever its clock says.
func (c *Config) awaitClock(ctx context.Context, now func() time.Time) error {
	dir := filepath.Join(c.DataDir, "pki")
	if pki.Certified(dir) {
		return nil
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for said := false; ; {
		err := pki.Clock(dir, now())
		if err == nil {
			return nil
		}
		if !said {
			said = true
			c.Log.Error("waiting for the clock to be set", "reason", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// blameClock makes the refusal of a certificate whose time has not come by this machine's
// clock one that is waited for.
func blameClock(err error, now time.Time) error {
	if pki.NotYet(err, now) {
		return cluster.Transientf("the certificates of the servers are not valid yet by this machine's clock, which says %s: set it (`timedatectl set-ntp true`, or `date -s`): %w", now.UTC().Format("2006-01-02 15:04 UTC"), err)
	}
	return err
}

// sayClock logs what look says of the clock when that changes, and returns it as text.
func sayClock(log hclog.Logger, last string, look func() error) string {
	text := ""
	if err := look(); err != nil {
		text = err.Error()
	}
	switch {
	case text != "" && last == "": // later it says another time, and no more
		log.Error(text)
	case text == "" && last != "":
		log.Info("the clock is set")
	}
	return text
}

// renew renews certificates while the server runs: long before they end, and as soon as
// the clock was set and by the new time they are not good. What is wrong with the clock
// it says once, and in an alarm.
func (m *machine) renew(ctx context.Context) {
	tick, all := time.NewTicker(clockEvery), time.NewTicker(renewEvery)
	defer tick.Stop()
	defer all.Stop()
	said, pause := "", 0
	for {
		said = sayClock(m.Log, said, m.pki.Clock)
		m.alarms.setClock(said)
		if pause == 0 && m.pki.Due() {
			pause = renewPause
			m.renewNow()
		}
		select {
		case <-ctx.Done():
			return
		case <-all.C:
			m.renewNow()
		case <-tick.C:
			pause = max(pause-1, 0)
		}
	}
}

func (m *machine) renewNow() {
	replaced, err := m.pki.Renew()
	switch {
	case err != nil:
		m.Log.Error("could not renew certificates; will retry", "error", err)
	case len(replaced) > 0:
		m.Log.Info("renewed certificates", "files", replaced)
	}
}

// watchClock says once what is wrong with a node's clock, until ctx ends.
func (j *joined) watchClock(ctx context.Context) error {
	tick := time.NewTicker(clockEvery)
	defer tick.Stop()
	for said := ""; ; {
		said = sayClock(j.Log, said, j.member.Clock)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
