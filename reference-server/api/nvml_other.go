//go:build !linux || !cgo

package api

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/launchgate/launchgate/reference-server/engine"
)

// newNVML is nil, because NVIDIA's management library is used on Linux only.
func newNVML(*engine.Pool) prometheus.Collector { return nil }
