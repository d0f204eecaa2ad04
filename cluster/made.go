package cluster

// Made is what came of making a release whose change stood on record: hooks ran around
// it, or it could be taken back. Zero but for Release: nothing is held against it.
type Made struct {
	Release int `json:"release"`
	// Open: hooks behind it, or what takes it back, are still to come.
	Open bool `json:"-"`
	// Failed: a hook broke, those behind it never ran to their end, or it is taken back. It
	// stays so, however its services are. Message says why.
	Failed  bool        `json:"failed,omitempty"`
	Hook    ServiceName `json:"hook,omitempty"` // that broke, if one did
	Message string      `json:"message,omitempty"`
}

// Makes reports whether an action makes a release.
func (a HookAction) Makes() bool {
	switch a {
	case HookInstall, HookUpgrade, HookRollback:
		return true
	case HookDelete, HookTest:
	}
	return false
}

// Made is what came of making a release of the app, by this change or, where this makes
// another one or none, by one before it.
func (r ChangeRecord) Made(release int) Made {
	if !r.Action.Makes() || r.Release != release {
		if r.Earlier != nil && r.Earlier.Release == release {
			return *r.Earlier
		}
		return Made{Release: release}
	}
	run, broke := r.Broke()
	m := Made{Release: release, Open: r.Stage != StageDone, Hook: run.Hook}
	if m.Failed = r.Failed && (broke || r.Behind || r.Stage == StageUndo); m.Failed {
		m.Message = r.Message
	}
	return m
}

// Past is what Made says once another change takes this one's place, as what the next
// record keeps of it; nil: there is nothing to keep.
func (r ChangeRecord) Past(release int) *Made {
	m := r.Made(release)
	if m.Open && !m.Failed && r.Behind {
		m.Failed, m.Message = true, "another change took its place before its hooks had run"
	}
	if m.Open = false; !m.Failed {
		return nil
	}
	return &m
}
