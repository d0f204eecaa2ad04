package api

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/fairlead/fairlead/api/v1"
)

// A node that had its image from another one has no digest of it: the other's is that of the
// same image for the same reference, and of nothing else.
func TestDigestsAreSharedByTheSameImage(t *testing.T) {
	const digest = "reg.test/web@sha256:d"
	tasks := []v1.TaskStatus{
		{Image: "reg.test/web:1", ImageID: "sha256:1"},
		{Image: "reg.test/web:1", ImageID: "sha256:1", ImageDigest: digest},
		{Image: "reg.test/web:1", ImageID: "sha256:2"},
		{Image: "web:1", ImageID: "sha256:1"},
		{Image: "reg.test/web:1"},
	}
	shareDigests(tasks)
	var got []string
	for _, x := range tasks {
		got = append(got, x.ImageDigest)
	}
	if diff := cmp.Diff([]string{digest, digest, "", "", ""}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
