//go:build !linux

package lab

import (
	"context"
	"io"
	"time"

	"github.com/fairlead/fairlead/cluster"
)

// errLinux is what labs are elsewhere.
var errLinux = cluster.Invalidf("a lab needs Linux: its nodes are namespaces of that kernel") //nolint:gochecknoglobals // an error

func Find(context.Context, string, Spec, string) (State, error) { return State{}, errLinux } //nolint:revive // see find_linux.go
func Up(context.Context, string, State, time.Duration, io.Writer) (Status, error) {
	return Status{}, errLinux
}                                                                                 //nolint:revive // see up_linux.go
func Await(context.Context, Dir, time.Duration, io.Writer) (Status, error)        { return Status{}, errLinux } //nolint:revive // see up_linux.go
func Down(context.Context, string, string) (bool, error)                          { return false, errLinux }    //nolint:revive // see up_linux.go
func Look(context.Context, Dir) (Status, error)                                   { return Status{}, errLinux } //nolint:revive // see reach_linux.go
func List(string) ([]string, error)                                               { return nil, errLinux }      //nolint:revive // see reach_linux.go
func Sweep(context.Context, string) error                                         { return errLinux }           //nolint:revive // see mark_linux.go
func Enter(string, string, string, []string, []string) error                      { return errLinux }           //nolint:revive // see reach_linux.go
func Shell(context.Context, string, string, string, string, Streams) (int, error) { return 0, errLinux }        //nolint:revive // see shell_linux.go
func LoadImage(context.Context, Dir, string, []string) ([]string, error)          { return nil, errLinux }      //nolint:revive // see reach_linux.go
func RunRack(context.Context, Dir) error                                          { return errLinux }           //nolint:revive // see rack_linux.go
func RunMachine() error                                                           { return errLinux }           //nolint:revive // see machine_linux.go
