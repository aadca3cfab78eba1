// Package resources is what the programs of this module share: reading YAML, and printing what Envoy is given.
package resources

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Lists are lists of what Envoy calls resources, by what they are: `listeners`, `routes`, `clusters`, `extensions`.
type Lists map[string][]json.RawMessage

// Print prints the lists as one JSON object. Or it ends the program with what went wrong.
func Print(lists Lists, err error) {
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(lists)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Read gives the YAML documents of all files as one text.
func Read(files []string) (string, error) {
	var texts []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		texts = append(texts, string(text))
	}
	return strings.Join(texts, "\n---\n"), nil
}

// Add puts messages into a list.
func Add[M proto.Message](to Lists, list string, messages []M) error {
	for _, message := range messages {
		// With the names that Envoy's documentation has.
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(message)
		if err != nil {
			return fmt.Errorf("%s: %w", list, err)
		}
		to[list] = append(to[list], text)
	}
	return nil
}
