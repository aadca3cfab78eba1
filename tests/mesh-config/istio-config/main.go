// Makes of resources for Istio what istiod gives a gateway's Envoy, and what its agent makes of that, by their own code:
//
//	istio-config FOLDER FILE...
//
// Prints a JSON object of lists: `listeners`, `routes`, `clusters`, `extensions`. What istiod refuses, or warns of, fails.
// The agent keeps the modules that it fetches in FOLDER.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/envoyproxy/gateway/moorage-mesh-config/resources"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pilot/pkg/model"
	configgen "istio.io/istio/pilot/pkg/networking/core"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/schema/collections"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/test"
	"istio.io/istio/pkg/wasm"
)

// The namespace, label and version of the gateway that the resources are for.
const (
	namespace    = "moorage"
	gatewayLabel = "moorage-gateway"
	istioVersion = "1.28.0"
)

// expectedWarning is what Istio says of every EnvoyFilter.
const expectedWarning = "EnvoyFilter exposes internal implementation details"

func main() {
	resources.Print(run(os.Args[1:]))
}

func run(arguments []string) (resources.Lists, error) {
	if len(arguments) < 2 {
		return nil, errors.New("usage: istio-config FOLDER FILE...")
	}
	text, err := resources.Read(arguments[1:])
	if err != nil {
		return nil, err
	}
	return istioResources(text, arguments[0])
}

// istioResources gives what istiod makes of the resources in `text` for the gateway, with modules fetched into `folder`.
func istioResources(text, folder string) (resources.Lists, error) {
	// Istio logs to standard output.
	log.Configure(&log.Options{OutputPaths: []string{"stderr"}, ErrorOutputPaths: []string{"stderr"}})
	configs, others, err := crd.ParseInputs(text)
	if err != nil {
		return nil, err
	}
	// Kubernetes' own kinds, which are not Istio's to read.
	for _, other := range others {
		switch other.Kind {
		case "Namespace", "Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "":
		default:
			return nil, fmt.Errorf("Istio does not know the kind %s", other.Kind)
		}
	}
	for _, each := range configs {
		if err := validate(each); err != nil {
			return nil, fmt.Errorf("%s %s: %w", each.GroupVersionKind.Kind, each.Name, err)
		}
	}
	found := resources.Lists{}
	err = test.Wrap(func(t test.Failer) {
		if err := generate(t, configs, folder, found); err != nil {
			t.Fatal(err)
		}
	})
	return found, err
}

// validate fails for what istiod refuses, and for what it warns of.
func validate(each config.Config) error {
	schema, known := collections.PilotGatewayAPI().FindByGroupVersionAliasesKind(each.GroupVersionKind)
	if !known {
		return errors.New("Istio has no schema for it")
	}
	warning, err := schema.ValidateConfig(each)
	if err != nil {
		return err
	}
	if warning == nil {
		return nil
	}
	for _, line := range strings.Split(warning.Error(), "\n") {
		line = strings.TrimSpace(line)
		if line != "" && !strings.Contains(line, expectedWarning) && !strings.HasSuffix(line, "occurred:") {
			return fmt.Errorf("warning: %s", line)
		}
	}
	return nil
}

func generate(t test.Failer, configs []config.Config, folder string, found resources.Lists) error {
	istiod := configgen.NewConfigGenTest(t, configgen.TestOptions{Configs: configs})
	gateway := istiod.SetupProxy(&model.Proxy{
		Type:            model.Router,
		ConfigNamespace: namespace,
		Labels:          map[string]string{"istio": gatewayLabel},
		Metadata: &model.NodeMetadata{
			Namespace:    namespace,
			Labels:       map[string]string{"istio": gatewayLabel},
			IstioVersion: istioVersion,
		},
	})
	listeners := istiod.Listeners(gateway)
	extensions := istiod.ConfigGen.BuildExtensionConfiguration(gateway, istiod.PushContext(), []string{"moorage"}, nil)
	fetched, err := asTheAgentGivesThem(extensions, folder)
	return errors.Join(
		err,
		resources.Add(found, "listeners", listeners),
		resources.Add(found, "routes", istiod.RoutesFromListeners(gateway, listeners)),
		resources.Add(found, "clusters", istiod.Clusters(gateway)),
		resources.Add(found, "extensions", fetched),
	)
}

// asTheAgentGivesThem has Istio's agent fetch the modules. What can't be fetched it replaces by a filter that refuses
// all requests.
func asTheAgentGivesThem(extensions []*core.TypedExtensionConfig, folder string) ([]*core.TypedExtensionConfig, error) {
	var packed []*anypb.Any
	for _, extension := range extensions {
		any, err := anypb.New(extension)
		if err != nil {
			return nil, err
		}
		packed = append(packed, any)
	}
	cache := wasm.NewLocalFileCache(folder, wasm.Options{})
	defer cache.Cleanup()
	if err := wasm.MaybeConvertWasmExtensionConfig(packed, cache); err != nil {
		return nil, err
	}
	var unpacked []*core.TypedExtensionConfig
	for _, any := range packed {
		extension := &core.TypedExtensionConfig{}
		if err := any.UnmarshalTo(extension); err != nil {
			return nil, err
		}
		unpacked = append(unpacked, extension)
	}
	return unpacked, nil
}
