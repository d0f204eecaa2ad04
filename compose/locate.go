package compose

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/fairlead/fairlead/cluster"
)

// locate finds the project directory, its environment, the main files, and what
// Docker Compose's variables say of them. An error that is not NotFound is one
// of the environment's files.
func (l *load) locate() error {
	dir := l.o.Dir
	if dir == "" && len(l.o.Files) > 0 {
		dir = filepath.Dir(l.o.Files[0])
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("project directory: %w", err)
	}
	l.o.Dir, l.env = dir, l.o.Env
	envErr := l.readEnv()
	if err := l.findFiles(); err != nil {
		return err
	}
	if envErr == nil && l.o.Dir != dir {
		envErr = l.readEnv() // the project's own, below the one here
	}
	if l.chosen = l.o.Profiles; len(l.o.Profiles) == 0 {
		l.o.Profiles = fields(l.env[consts.ComposeProfiles], ",")
	}
	if l.app = l.o.App; l.app == "" {
		l.app = cluster.AppName(l.env[consts.ComposeProjectName])
	}
	if l.app == "" {
		l.app = appName(filepath.Base(l.o.Dir)) // until the file's name: is read
	}
	return envErr
}

// findFiles makes the list of main files absolute: those given, else those of
// COMPOSE_FILE, else the usual ones of the project directory or of the nearest
// one above, which is the project's then.
func (l *load) findFiles() error {
	for _, f := range l.o.Files {
		if f == "-" { // standard input is at home in the project
			f = filepath.Join(l.o.Dir, f)
		}
		abs, err := filepath.Abs(f)
		if err != nil {
			return fmt.Errorf("file %s: %w", f, err)
		}
		l.files = append(l.files, abs)
	}
	if l.files != nil {
		return nil
	}
	sep := l.env[consts.ComposePathSeparator]
	if sep == "" {
		sep = string(os.PathListSeparator)
	}
	for _, f := range fields(l.env[consts.ComposeFilePath], sep) {
		if !filepath.IsAbs(f) {
			f = filepath.Join(l.o.Dir, f)
		}
		l.files = append(l.files, filepath.Clean(f))
	}
	if l.files != nil {
		l.asked, l.o.Dir = consts.ComposeFilePath, filepath.Dir(l.files[0])
		return nil
	}
	for dir := l.o.Dir; ; dir = filepath.Dir(dir) {
		if l.files = l.defaultFiles(dir); l.files != nil {
			l.o.Dir = dir
			return nil
		}
		if dir == filepath.Dir(dir) {
			return cluster.NotFoundf("no Compose file in %s or above: looked for %s; name one with -f", l.o.Dir, strings.Join(cli.DefaultFileNames, ", "))
		}
	}
}

// fields splits a list in a variable; empty parts do not count.
func fields(list, sep string) (out []string) {
	for f := range strings.SplitSeq(list, sep) {
		if f = strings.TrimSpace(f); f != "" {
			out = append(out, f)
		}
	}
	return out
}

// FileNames are the usual names of a Compose file, the first that is there counts.
func FileNames() []string { return slices.Clone(cli.DefaultFileNames) }

// OverrideFileNames are the usual names of a file beside it that changes it.
func OverrideFileNames() []string { return slices.Clone(cli.DefaultOverrideFileNames) }

// defaultFiles finds a Compose file and its override by the usual names, as Docker
// Compose does, and warns of others that are not read.
func (l *load) defaultFiles(dir string) (files []string) {
	for _, names := range [][]string{cli.DefaultFileNames, cli.DefaultOverrideFileNames} {
		var found []string
		for _, name := range names {
			if f := filepath.Join(dir, name); regular(f) {
				found = append(found, f)
			}
		}
		if len(found) == 0 {
			return files // there is nothing to override, or nothing does
		}
		for _, f := range found[1:] {
			l.warn(cluster.Source{File: filepath.Base(f)}, "", "not read: "+filepath.Base(found[0])+" is", "name the files with -f to choose")
		}
		files = append(files, found[0])
	}
	return files
}

func regular(f string) bool {
	s, err := os.Stat(f)
	return err == nil && s.Mode().IsRegular()
}

// composeEnvFiles lists env files as --env-file does, from where the command runs.
const composeEnvFiles = "COMPOSE_ENV_FILES"

// readEnv reads the given env files, else those of COMPOSE_ENV_FILES, else .env in
// the project directory. What is set already wins.
func (l *load) readEnv() error {
	files, asked := l.o.EnvFiles, ""
	if len(files) == 0 {
		// Only of the environment: this is what says where the other variables are.
		if files = fields(l.o.Env[composeEnvFiles], ","); len(files) > 0 {
			asked = "; " + composeEnvFiles + " names it"
		}
	}
	if off, _ := strconv.ParseBool(l.o.Env[consts.ComposeDisableDefaultEnvFile]); len(files) == 0 && !off {
		if f := filepath.Join(l.o.Dir, ".env"); regular(f) {
			files = []string{f}
		}
	}
	env, err := readDotenv(files, l.env)
	if err != nil {
		return cluster.Invalidf("env file: %w%s", err, asked)
	}
	for _, f := range files {
		l.warnUnsetIn(f, "", l.env)
	}
	l.env = env
	for _, f := range slices.Backward(files) {
		l.envFiles = append(l.envFiles, f)
	}
	return nil
}

// readDotenv merges env files below what is set already.
func readDotenv(files []string, set map[string]string) (env map[string]string, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	for _, f := range files {
		if s, serr := os.Stat(f); serr == nil && s.Size() > maxFileSize {
			return nil, fmt.Errorf("%s has %d bytes; at most %d are read", f, s.Size(), maxFileSize)
		}
	}
	fromFiles, err := dotenv.GetEnvFromFile(set, files)
	if err != nil {
		return nil, err
	}
	return types.Mapping(set).Clone().Merge(fromFiles), nil
}

// setBy is what sets a variable of the environment: the place in an env file,
// else the variable itself.
func (l *load) setBy(name string) cluster.Source {
	if _, set := l.o.Env[name]; set {
		return cluster.Source{}
	}
	re := regexp.MustCompile(`^\s*(export\s+)?` + name + `\s*[=:]`)
	for _, f := range l.envFiles {
		b, err := readLimited(f, maxFileSize)
		if err != nil {
			continue // gone since
		}
		lines := strings.Split(string(b), "\n")
		for i, line := range slices.Backward(lines) { // the last one counts
			if re.MatchString(line) {
				if abs, err := filepath.Abs(f); err == nil {
					f = abs
				}
				return cluster.Source{File: l.show(f), Line: i + 1}
			}
		}
	}
	return cluster.Source{}
}
