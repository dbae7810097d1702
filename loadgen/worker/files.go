package worker

import (
	"os"
	"path/filepath"
	"strconv"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// File is a file of the coordinator's machine that a worker of another machine needs.
type File struct {
	Path    string // as the gate or the endpoint names it
	Content []byte
}

// names are the places in which a gate and an endpoint name files that are read for the
// load.
func names(g *scenarios.Gate, e *scenarios.Endpoint) (all []*string) {
	for i := range g.Scenarios {
		s := &g.Scenarios[i]
		all = append(all, &s.Workload.Dataset)
		for j := range s.Classes {
			all = append(all, &s.Classes[j].Workload.Dataset)
		}
		for _, stage := range s.Stages {
			if stage.Trace != nil {
				all = append(all, &stage.Trace.File)
			}
		}
	}
	return append(all, &e.CAFile, &e.CertFile, &e.KeyFile)
}

// Pack reads the files that a worker of another machine needs.
func Pack(g scenarios.Gate, e scenarios.Endpoint) (files []File, err error) {
	read := map[string]bool{"": true}
	for _, name := range names(&g, &e) {
		if read[*name] {
			continue
		}
		read[*name] = true
		content, err := os.ReadFile(*name)
		if err != nil {
			return nil, words.Errorf("read a file for the workers: %s", err)
		}
		files = append(files, File{*name, content})
	}
	return files, nil
}

// unpack writes the files to a folder and has the gate and the endpoint name them there.
func unpack(files []File, folder string, g *scenarios.Gate, e *scenarios.Endpoint) error {
	at := map[string]string{}
	for i, f := range files {
		at[f.Path] = filepath.Join(folder, strconv.Itoa(i)+"-"+filepath.Base(f.Path))
		if err := os.WriteFile(at[f.Path], f.Content, 0o600); err != nil {
			return words.Errorf("write a file of the gate: %s", err)
		}
	}
	for _, name := range names(g, e) {
		if here, packed := at[*name]; packed {
			*name = here
		}
	}
	return nil
}
