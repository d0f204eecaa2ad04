package mesh

import (
	"context"
	"time"
)

// gatherFor bounds how long more tasks of a service wait to be written.
const gatherFor = 200 * time.Millisecond

// gather waits for a moment while services only get more tasks: nobody waits for
// that, and each change of the kernel's rules is a process. Many start at once.
func (m *Mesh) gather(ctx context.Context) {
	enough := time.NewTimer(gatherFor)
	defer enough.Stop()
	for {
		changed := m.cfg.Changed()
		if !m.onlyGrew() {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-enough.C:
			return
		case <-changed:
		}
	}
}

// onlyGrew reports whether all that the kernel does not know yet are more tasks of
// services that it serves.
func (m *Mesh) onlyGrew() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	eps, rev := m.cfg.Endpoints()
	return rev != 0 && m.applied != nil && grew(*m.applied, Rules(eps, m.networks, m.peers))
}
