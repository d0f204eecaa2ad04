package integration

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	defer removeTestImage()
	return m.Run()
}
