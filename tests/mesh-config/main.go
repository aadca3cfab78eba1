// Makes of resources for Istio or Envoy Gateway the configuration that these give Envoy, by their own code.
//
//	mesh-config istio FOLDER FILE...           what istiod gives a gateway, and what its agent makes of that
//	mesh-config envoy-gateway FILE...          what Envoy Gateway gives an Envoy
//
// Prints a JSON object of lists: `listeners`, `routes`, `clusters` and, for Istio, `extensions`. Whatever Istio or
// Envoy Gateway warns of, or would leave out, fails. Istio's agent keeps the modules that it fetches in FOLDER.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// resources are lists of what Envoy calls resources, by what they are.
type resources map[string][]json.RawMessage

func main() {
	found, err := run(os.Args[1:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(found)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mesh-config:", err)
		os.Exit(1)
	}
}

func run(arguments []string) (resources, error) {
	switch {
	case len(arguments) > 2 && arguments[0] == "istio":
		text, err := read(arguments[2:])
		if err != nil {
			return nil, err
		}
		return istioResources(text, arguments[1])
	case len(arguments) > 1 && arguments[0] == "envoy-gateway":
		text, err := read(arguments[1:])
		if err != nil {
			return nil, err
		}
		return envoyGatewayResources(text)
	}
	return nil, fmt.Errorf("usage: mesh-config istio FOLDER FILE... | mesh-config envoy-gateway FILE...")
}

// read gives the YAML documents of all files as one text.
func read(files []string) (string, error) {
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

// add puts messages into a list.
func add[M proto.Message](to resources, list string, messages []M) error {
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
