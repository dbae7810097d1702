package engine

import (
	"slices"
	"strconv"
)

// Caller is the user for whom a request is computed.
type Caller struct {
	Tenant string // empty: no tenant
	Class  Class
	Weight int // of the tenant's share, at least 1; 0 means 1
}

// MostWeight is the largest weight of a tenant.
const MostWeight = 100

// Class is a priority: in the queue, in a step, and for the memory of the cache.
type Class int

// The classes, the least important first.
const (
	Background Class = iota // nobody waits for the answer
	Batch
	Standard
	Interactive
)

var classNames = []string{"background", "batch", "standard", "interactive"}

func (c Class) String() string { return classNames[c] }

// ParseClass reads a class by its name or its number.
func ParseClass(s string) (Class, bool) {
	if i := slices.Index(classNames, s); i >= 0 {
		return Class(i), true
	}
	n, err := strconv.Atoi(s)
	return Class(n), err == nil && n >= 0 && n < len(classNames)
}
