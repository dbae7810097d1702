package scenarios

import "fmt"

// Lines are the lines of a gate's file on which things stand, for those who show
// a result beside the file.
type Lines struct {
	objectives map[string]int // by their text
	faults     map[string]int // by scenario/index, as a recording names them
	scan       int
}

// LinesOf finds the lines in a gate's file. Of a file that is not a valid gate it
// finds what it can.
func LinesOf(src []byte) Lines {
	l := Lines{objectives: map[string]int{}, faults: map[string]int{}}
	root, problem := parseYAML(src)
	if problem != nil {
		return l
	}
	var gate Gate
	d := newDecoder(root)
	d.decodeInto(root, &gate)
	line := func(format string, args ...any) int { return d.placeOf(fmt.Sprintf(format, args...)).line }
	for i, p := range gate.Profiles {
		of, err := parseProfile(p)
		if err != nil {
			continue
		}
		for _, o := range of {
			l.objectives[o.Source] = line("profiles[%d]", i)
		}
	}
	for i, o := range gate.Objectives {
		l.objectives[o.Source] = line("objectives[%d]", i)
	}
	for i, s := range gate.Scenarios {
		n := 0 // a fault that repeats is recorded as several
		for j, f := range s.Faults {
			for times := min(max(f.Repeat, 1), maxRepeat); times > 0; times-- {
				l.faults[fmt.Sprintf("%s/%d", s.Name, n)] = line("scenarios[%d].faults[%d]", i, j)
				n++
			}
		}
	}
	if gate.Scan != nil {
		l.scan = line("scan")
	}
	return l
}

// Objective is the line of an objective, or of the profile that it comes from; 0 if
// the file does not have it.
func (l Lines) Objective(source string) int { return l.objectives[source] }

// Fault is the line of a fault, by its id in a recording; 0 if the file does not
// have it.
func (l Lines) Fault(id string) int { return l.faults[id] }

// Scan is the line of the security scan; 0 if there is none.
func (l Lines) Scan() int { return l.scan }
