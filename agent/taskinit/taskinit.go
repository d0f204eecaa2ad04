package taskinit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
)

// Where the agent mounts this program and its input in a container.
const (
	Program = "/run/fairlead/init"
	EnvFile = "/run/fairlead/env"
	// Command is the program's argument that asks for this package.
	Command = "task-init"
)

// exit codes of shells, which Docker uses as well.
const (
	exitUsage     = 125
	exitCannotRun = 126
	exitNotFound  = 127
)

// The rule is: no init functions. This one is why a container with secrets in
// its environment starts 13 ms sooner: Go initialises packages in the order of
// their import paths, so that it runs before the heavy ones (etcd, JSON schema,
// Vault) are set up, which take 15 ms and some megabytes of the container's
// memory each time, health checks included. It acts only where this program is
// the one that the agent mounted.
func init() {
	if len(os.Args) < 2 || os.Args[0] != Program || os.Args[1] != Command {
		return
	}
	code, err := run(os.Args[2:], EnvFile)
	fmt.Fprintln(os.Stderr, "fairlead:", err)
	os.Exit(code)
}

func run(argv []string, envFile string) (int, error) {
	if len(argv) == 0 {
		return exitUsage, errors.New("the task has no command: neither the image nor the service names one")
	}
	b, err := os.ReadFile(envFile) //nolint:gosec // a fixed path; tests give their own
	if err != nil {
		return exitUsage, fmt.Errorf("read the task's secrets: %w", err)
	}
	env, err := merge(os.Environ(), b)
	if err != nil {
		return exitUsage, err
	}
	path, err := find(argv[0], lookup(env, "PATH"))
	if err != nil {
		return exitNotFound, err
	}
	err = syscall.Exec(path, argv, env) //nolint:gosec // to run what it is told is its purpose
	return exitCannotRun, fmt.Errorf("start %s: %w", path, err)
}

// EncodeEnv writes variables as the file that this program reads: "NAME=value"
// ended by a zero byte each, in order of names.
func EncodeEnv(env map[string]string) ([]byte, error) {
	names := make([]string, 0, len(env))
	for k := range env {
		names = append(names, k)
	}
	slices.Sort(names)
	var b bytes.Buffer
	for _, k := range names {
		if k == "" || strings.ContainsAny(k, "=\x00") {
			return nil, fmt.Errorf("%q is no name of a variable", k)
		}
		if strings.ContainsRune(env[k], 0) {
			return nil, fmt.Errorf("the value of %s holds a zero byte, which no variable can", k)
		}
		b.WriteString(k + "=" + env[k] + "\x00")
	}
	return b.Bytes(), nil
}

// merge returns env with the variables of file in place of those of the same name.
func merge(env []string, file []byte) ([]string, error) {
	out := slices.Clone(env)
	for v := range bytes.SplitSeq(file, []byte{0}) {
		if len(v) == 0 {
			continue
		}
		name, _, ok := strings.Cut(string(v), "=")
		if !ok {
			return nil, errors.New("the file of the task's secrets is damaged")
		}
		out = slices.DeleteFunc(out, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		out = append(out, string(v))
	}
	return out, nil
}

func lookup(env []string, name string) string {
	for _, e := range slices.Backward(env) {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// defaultPath is what Docker gives to images that set none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// find resolves a command as execvp does.
func find(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	if path == "" {
		path = defaultPath
	}
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		p := dir + "/" + name
		st, err := os.Stat(p) //nolint:gosec // as execvp does
		if err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: not found in %s", name, path)
}
