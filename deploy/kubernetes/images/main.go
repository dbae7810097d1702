// Images makes the container images of both programs, without a daemon: see docs/kubernetes.md.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/launchgate/launchgate/deploy/kubernetes/image"
)

func main() {
	to := flag.String("to", "bin/images", "the `folder` that they are written to")
	tag := flag.String("tag", "dev", "their `version`")
	programs := flag.String("programs", "", "a `folder` with the programs; without one they are built")
	flag.Parse()
	if err := run(*to, *tag, *programs); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(to, tag, programs string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if programs == "" {
		programs = filepath.Join(to, "programs")
		// Without the folders and the identity of this build, the same source gives the same program.
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", programs+string(filepath.Separator), "./cmd/launchgate", "./cmd/reference-server")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build the programs: %w", err)
		}
	}
	for _, name := range []string{"reference-server", "launchgate"} {
		spec, err := image.OfProgram(filepath.Join(programs, name), []string{"XDG_CACHE_HOME=/tmp"}, map[string]string{"org.opencontainers.image.title": name, "org.opencontainers.image.version": tag, "org.opencontainers.image.licenses": "Apache-2.0"})
		if err != nil {
			return err
		}
		img, err := image.Build(spec)
		if err != nil {
			return err
		}
		digest, err := img.Digest()
		if err != nil {
			return err
		}
		ref, file := "launchgate/"+name+":"+tag, filepath.Join(to, name+".tar")
		if err := image.Write(file, ref, img); err != nil {
			return err
		}
		fmt.Printf("%s  %s  %s\n", ref, digest, file)
	}
	return nil
}
