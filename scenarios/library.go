package scenarios

import (
	"embed"
	"fmt"
	"path"
	"strings"
)

//go:embed gates/*.yaml
var gateFiles embed.FS

//go:embed starter.yaml
var starter string

//go:embed gate.schema.json
var schema []byte

// Gates are the ready gates that launchgate carries, by file name.
func Gates() []Gate {
	files, err := gateFiles.ReadDir("gates")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	var gates []Gate
	for _, file := range files {
		gate, _, err := Ready(strings.TrimSuffix(file.Name(), ".yaml"))
		if err != nil {
			panic(err) // a test reads each of them
		}
		gates = append(gates, gate)
	}
	return gates
}

// Ready is the ready gate of a name, if there is one.
func Ready(name string) (Gate, bool, error) {
	src, ok := ReadySource(name)
	if !ok {
		return Gate{}, false, nil
	}
	gate, err := Parse(path.Join("gates", name+".yaml"), src)
	return gate, true, err
}

// ReadySource is the text of the ready gate of a name, if there is one.
func ReadySource(name string) ([]byte, bool) {
	if !isName(name) {
		return nil, false
	}
	src, err := gateFiles.ReadFile(path.Join("gates", name+".yaml"))
	return src, err == nil
}

// Starter is a commented gate to start from. Its first line links the schema
// for completion in editors; schemaPath is where that lies, from the gate.
func Starter(schemaPath string) []byte {
	return fmt.Appendf(nil, "# yaml-language-server: $schema=%s\n%s", schemaPath, starter)
}

// Schema is the JSON Schema of a gate, made from the types by the tests.
func Schema() []byte { return schema }
