package proc

import (
	"os/exec"
	"runtime"
	"syscall"
)

// StartTied starts a command that the kernel kills when this process ends, in whichever way.
// The channel gets what Wait says, once it has ended, and is closed then.
//
// The kernel goes by the thread that started it, and threads end: that of a goroutine which
// returns while it is locked to it. This one is kept until the command has ended.
func StartTied(cmd *exec.Cmd) (<-chan error, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		defer close(ended)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return ended, nil
}
