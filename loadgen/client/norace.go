//go:build !race

package client

// raced is whether the race detector watches. It knows that what was written
// to a connection happened before it is read by syscall.Read alone, so under it
// every recvmsg is followed by one, of no bytes.
const raced = false
