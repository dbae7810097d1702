package version

import "testing"

// A stamped version comes before what the build knows of itself.
func TestStampedVersion(t *testing.T) {
	if Short() == "" {
		t.Error("a build without a stamp has no version")
	}
	stamped = "v1.2.3"
	defer func() { stamped = "" }()
	if Short() != "v1.2.3" || Of().Version != "v1.2.3" {
		t.Errorf("stamped with v1.2.3, and is %s", Short())
	}
	if b := Of(); b.Go == "" || b.OS == "" || b.Arch == "" {
		t.Errorf("the build does not say with what it was made: %+v", b)
	}
}
