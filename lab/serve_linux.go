package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/cluster"
)

// serve answers requests until ctx ends.
func (r *rack) serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			var ask Request
			err := json.NewDecoder(req.Body).Decode(&ask)
			if err == nil {
				err = r.handle(req.Context(), ask)
			}
			a := answer{Status: r.status(req.Context())}
			if err != nil {
				a.Error, a.Kind = err.Error(), cluster.KindOf(err)
			}
			_ = json.NewEncoder(w).Encode(a)
		}),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	return srv.Serve(l)
}

func (r *rack) handle(ctx context.Context, ask Request) error {
	if ask.Op == OpStatus {
		return nil
	}
	r.log.Info("asked", "op", ask.Op, "target", ask.Target+ask.Snapshot)
	return r.change(ctx, func(s *State) error {
		switch ask.Op {
		case OpSnapshot:
			return r.snapshotDisks(ask.Snapshot)
		case OpRestore:
			return r.restoreDisks(ask.Snapshot)
		case OpStatus, OpKill, OpStart, OpCut, OpHeal, OpSlow:
		}
		return ask.wanted(s)
	})
}

// snapshotDisks copies what the machines have on disk. They are ended for it, and
// the loop starts them again.
func (r *rack) snapshotDisks(name string) error {
	to := r.dir.snapshot(name)
	if _, err := os.Stat(to); err == nil {
		return &cluster.Error{Kind: cluster.KindConflict, Msg: fmt.Sprintf("there is a snapshot %q already", name)}
	}
	if err := r.halt(); err != nil {
		return err
	}
	return copyDisks(r.dir.disks(), to)
}

// restoreDisks gives the machines the disks of a snapshot, in one step.
func (r *rack) restoreDisks(name string) error {
	from, fresh := r.dir.snapshot(name), r.dir.disks()+".new"
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		return cluster.NotFoundf("there is no snapshot %q", name)
	}
	if err := r.halt(); err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(fresh), copyDisks(from, fresh)); err != nil {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, r.dir.disks(), unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("put the disks of snapshot %q in place: %w", name, err)
	}
	return os.RemoveAll(fresh)
}

// partial ends the name of a copy that is not whole.
const partial = ".part"

// copyDisks copies all disks to a directory that is not there yet; one that could
// not be copied whole is not left there.
func copyDisks(from, to string) error {
	part := to + partial
	if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.RemoveAll(part)); err != nil {
		return err
	}
	// cp keeps what the engine has on disk: devices, owners, extended attributes.
	out, err := exec.Command("cp", "-a", "--reflink=auto", from, part).CombinedOutput() //nolint:noctx,gosec // our own directories; ended with the lab
	if err == nil {
		err = os.Rename(part, to)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("copy the disks: %w: %s", err, out), os.RemoveAll(part))
	}
	return nil
}
