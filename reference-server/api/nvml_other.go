//go:build !linux || !cgo

package api

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/launchgate/launchgate/reference-server/engine"
)

// newNVML is nil: NVIDIA's management library is called through C, on Linux.
func newNVML(*engine.Pool) prometheus.Collector { return nil }
