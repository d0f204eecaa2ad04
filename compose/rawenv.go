package compose

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/compose-spec/compose-go/v2/dotenv"
)

// registerRaw gives compose-go the format raw of env files, which it leaves to
// programs: its table is one for the process.
var registerRaw = sync.OnceFunc(func() { dotenv.RegisterFormat("raw", readRawEnv) })

// readRawEnv reads an env file as docker run does: a line is NAME=VALUE, with
// nothing unquoted, interpolated or trimmed in the value. NAME alone takes the
// value that it has outside.
func readRawEnv(r io.Reader, filename string, vars map[string]string, lookup func(string) (string, bool)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxFileSize)
	for n := 1; lines.Scan(); n++ {
		b := lines.Bytes()
		if n == 1 {
			b = bytes.TrimPrefix(b, []byte("\ufeff"))
		}
		line := strings.TrimLeftFunc(string(b), unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		k, v, set := strings.Cut(line, "=")
		switch {
		case !utf8.ValidString(line):
			return fmt.Errorf("%s: line %d is not UTF-8", filename, n)
		case k == "" || strings.ContainsAny(k, " \t"):
			return fmt.Errorf("%s: line %d is not NAME=VALUE", filename, n)
		case set:
			vars[k] = v
		default:
			if v, found := lookup(k); found {
				vars[k] = v
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", filename, err)
	}
	return nil
}
