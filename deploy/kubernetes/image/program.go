package image

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"
)

// libraryFolders are the folders in which the shared libraries of a program are
// searched.
var libraryFolders = []string{"/lib64", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/lib", "/usr/lib"}

// Libraries are the shared libraries of a program and its loader, at the paths
// where it looks for them. A static program has none.
func Libraries(program string) ([]File, error) {
	var all []File
	seen := map[string]bool{}
	var add func(file string) error
	add = func(file string) error {
		f, err := elf.Open(file)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		defer f.Close()
		needed, err := f.ImportedLibraries()
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if loader := interpreter(f); loader != "" {
			needed = append(needed, loader)
		}
		for _, lib := range needed {
			at, err := find(lib, f.Machine)
			if err != nil {
				return fmt.Errorf("%s needs %s: %w", file, lib, err)
			}
			if seen[at] {
				continue
			}
			seen[at] = true
			b, err := os.ReadFile(at)
			if err != nil {
				return err
			}
			all = append(all, File{Path: at, Content: b, Mode: 0o755})
			if err := add(at); err != nil {
				return err
			}
		}
		return nil
	}
	return all, add(program)
}

func interpreter(f *elf.File) string {
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err == nil {
				return string(bytes.TrimRight(b, "\x00"))
			}
		}
	}
	return ""
}

func find(lib string, machine elf.Machine) (string, error) {
	if filepath.IsAbs(lib) {
		return lib, nil
	}
	for _, dir := range libraryFolders {
		at := filepath.Join(dir, lib)
		f, err := elf.Open(at)
		if err != nil {
			continue
		}
		same := f.Machine == machine
		f.Close()
		if same {
			return at, nil
		}
	}
	return "", fmt.Errorf("it is in none of %s", strings.Join(libraryFolders, ", "))
}

// Architecture is the processor architecture of a program, by its name in
// images.
func Architecture(program string) (string, error) {
	f, err := elf.Open(program)
	if err != nil {
		return "", fmt.Errorf("%s: %w", program, err)
	}
	defer f.Close()
	switch f.Machine {
	case elf.EM_X86_64:
		return "amd64", nil
	case elf.EM_AARCH64:
		return "arm64", nil
	}
	return "", fmt.Errorf("%s is for %s, and images are made for amd64 and arm64", program, f.Machine)
}

// BillOfMaterials is the CycloneDX bill of materials of an image with a Go
// program. It lists the modules of the program, the Go release, and the
// libraries with their SHA-256.
func BillOfMaterials(program string, libraries []File) ([]byte, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("%s was not built by Go: %w", program, err)
	}
	components := []cyclonedx.Component{{Type: cyclonedx.ComponentTypePlatform, Name: "go", Version: strings.TrimPrefix(info.GoVersion, "go"), BOMRef: "go"}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		url := "pkg:golang/" + m.Path + "@" + m.Version
		components = append(components, cyclonedx.Component{Type: cyclonedx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: url, BOMRef: url})
	}
	for _, l := range libraries {
		sum := sha256.Sum256(l.Content)
		components = append(components, cyclonedx.Component{Type: cyclonedx.ComponentTypeFile, Name: l.Path, BOMRef: l.Path,
			Hashes: &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}}})
	}
	slices.SortFunc(components, func(a, b cyclonedx.Component) int { return strings.Compare(a.BOMRef, b.BOMRef) })
	bom := cyclonedx.NewBOM()
	bom.Metadata = &cyclonedx.Metadata{Component: &cyclonedx.Component{Type: cyclonedx.ComponentTypeApplication, Name: filepath.Base(program), BOMRef: info.Path}}
	bom.Components = &components
	var b bytes.Buffer
	err = cyclonedx.NewBOMEncoder(&b, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(bom)
	return b.Bytes(), err
}

// OfProgram is the image of one Go program with the libraries that it needs and
// its bill of materials at /sbom.cdx.json. It runs as User, and writes only
// below /tmp and to mounted volumes.
func OfProgram(program string, environment []string, labels map[string]string) (Spec, error) {
	b, err := os.ReadFile(program)
	if err != nil {
		return Spec{}, err
	}
	architecture, err := Architecture(program)
	if err != nil {
		return Spec{}, err
	}
	libraries, err := Libraries(program)
	if err != nil {
		return Spec{}, err
	}
	bom, err := BillOfMaterials(program, libraries)
	if err != nil {
		return Spec{}, err
	}
	base := append([]File{
		{Path: "/tmp/", Mode: 0o1777},
		{Path: "/etc/passwd", Content: []byte("root:x:0:0::/:\nserver:x:10001:10001::/:\n"), Mode: 0o644},
		{Path: "/etc/group", Content: []byte("root:x:0:\nserver:x:10001:\n"), Mode: 0o644},
	}, libraries...)
	at := "/" + filepath.Base(program)
	return Spec{
		Layers:     [][]File{base, {{Path: at, Content: b, Mode: 0o755}, {Path: "/sbom.cdx.json", Content: bom, Mode: 0o644}}},
		Entrypoint: []string{at}, Environment: environment, User: User, Architecture: architecture, Labels: labels,
	}, nil
}
