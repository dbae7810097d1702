//go:build !linux

package host

func canMount() error { return lack("it needs a file system of its own: Linux") }

func mountDisk(string, int64) error { return canMount() }

func unmount(string) error { return nil }

func mounted(string) bool { return false }

func fill(string) (int64, error) { return 0, canMount() }
