// Makes of resources for Envoy Gateway what it gives an Envoy, by its own code:
//
//	envoy-gateway-config FILE...
//
// Prints a JSON object of lists: `listeners`, `routes`, `clusters`. A patch that does not fit, or a field that is not
// known, fails.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	egv1a1 "github.com/envoyproxy/gateway/api/v1alpha1"
	"github.com/envoyproxy/gateway/internal/ir"
	"github.com/envoyproxy/gateway/internal/xds/translator"
	"github.com/envoyproxy/gateway/moorage-mesh-config/resources"
	cachetypes "github.com/envoyproxy/go-control-plane/pkg/cache/types"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	gwapiv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

func main() {
	resources.Print(run(os.Args[1:]))
}

func run(arguments []string) (resources.Lists, error) {
	if len(arguments) == 0 {
		return nil, errors.New("usage: envoy-gateway-config FILE...")
	}
	text, err := resources.Read(arguments)
	if err != nil {
		return nil, err
	}
	return envoyGatewayResources(text)
}

// envoyGatewayResources gives what Envoy Gateway makes of a Gateway and of the EnvoyPatchPolicies for it.
//
// The listeners' addresses, names and hosts are those that it derives from a Gateway; TLS is left out. Everything after
// that is its own doing.
func envoyGatewayResources(text string) (resources.Lists, error) {
	gateway, policies := &gwapiv1.Gateway{}, []*egv1a1.EnvoyPatchPolicy{}
	for _, document := range strings.Split(text, "\n---\n") {
		kind := struct{ Kind string }{}
		if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
			return nil, err
		}
		var into any
		switch kind.Kind {
		case "":
			continue
		case "Gateway":
			into = gateway
		case "EnvoyPatchPolicy":
			policy := &egv1a1.EnvoyPatchPolicy{}
			policies = append(policies, policy)
			into = policy
		case "EnvoyProxy":
			into = &egv1a1.EnvoyProxy{}
		case "ClientTrafficPolicy":
			into = &egv1a1.ClientTrafficPolicy{}
		case "BackendTrafficPolicy":
			into = &egv1a1.BackendTrafficPolicy{}
		case "GatewayClass":
			into = &gwapiv1.GatewayClass{}
		case "HTTPRoute":
			into = &gwapiv1.HTTPRoute{}
		default:
			return nil, fmt.Errorf("Envoy Gateway does not know the kind %s", kind.Kind)
		}
		if err := yaml.UnmarshalStrict([]byte(document), into); err != nil {
			return nil, fmt.Errorf("%s: %w", kind.Kind, err)
		}
	}
	return translate(gateway, policies)
}

func translate(gateway *gwapiv1.Gateway, policies []*egv1a1.EnvoyPatchPolicy) (resources.Lists, error) {
	xds := &ir.Xds{}
	for _, listener := range gateway.Spec.Listeners {
		host := "*"
		if listener.Hostname != nil {
			host = string(*listener.Hostname)
		}
		xds.HTTP = append(xds.HTTP, &ir.HTTPListener{
			CoreListenerDetails: ir.CoreListenerDetails{
				Name:    fmt.Sprintf("%s/%s/%s", gateway.Namespace, gateway.Name, listener.Name),
				Address: "0.0.0.0",
				// Ports below 1024 are moved up, so that Envoy needs no right to bind them.
				Port: uint32(listener.Port) + 10000,
			},
			Hostnames: []string{host},
			Path:      ir.PathSettings{MergeSlashes: true, EscapedSlashesAction: ir.PathEscapedSlashAction(egv1a1.UnescapeAndRedirect)},
		})
	}
	for _, policy := range policies {
		if policy.Spec.TargetRef.Kind != "Gateway" || string(policy.Spec.TargetRef.Name) != gateway.Name ||
			policy.Namespace != gateway.Namespace {
			return nil, fmt.Errorf("EnvoyPatchPolicy %s is not for the Gateway", policy.Name)
		}
		xds.EnvoyPatchPolicies = append(xds.EnvoyPatchPolicies, patches(policy))
	}
	table, err := (&translator.Translator{ControllerNamespace: "envoy-gateway-system"}).Translate(context.Background(), xds)
	if err != nil {
		return nil, err
	}
	// A patch that found nothing to change, or made something invalid, is told in the policy's status alone.
	for _, policy := range xds.EnvoyPatchPolicies {
		for _, ancestor := range policy.Status.Ancestors {
			for _, condition := range ancestor.Conditions {
				if condition.Type == string(egv1a1.PolicyConditionProgrammed) && condition.Status != "True" {
					return nil, fmt.Errorf("EnvoyPatchPolicy %s: %s", policy.Name, condition.Message)
				}
			}
		}
	}
	found := resources.Lists{}
	for list, kind := range map[string]resourcev3.Type{
		"listeners": resourcev3.ListenerType, "routes": resourcev3.RouteType, "clusters": resourcev3.ClusterType,
	} {
		if err := resources.Add(found, list, messages(table.XdsResources[kind])); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// patches are those of a policy, with a place in its status where it is told what came of them.
func patches(policy *egv1a1.EnvoyPatchPolicy) *ir.EnvoyPatchPolicy {
	policy.Status.Ancestors = []gwapiv1.PolicyAncestorStatus{{
		AncestorRef: gwapiv1.ParentReference{Name: policy.Spec.TargetRef.Name},
	}}
	translated := &ir.EnvoyPatchPolicy{}
	translated.Name, translated.Namespace, translated.Status = policy.Name, policy.Namespace, &policy.Status
	for _, patch := range policy.Spec.JSONPatches {
		translated.JSONPatches = append(translated.JSONPatches, &ir.JSONPatchConfig{
			Type: string(patch.Type),
			Name: patch.Name,
			Operation: ir.JSONPatchOperation{
				Op:       ir.JSONPatchOp(patch.Operation.Op),
				Path:     patch.Operation.Path,
				JSONPath: patch.Operation.JSONPath,
				From:     patch.Operation.From,
				Value:    patch.Operation.Value,
			},
		})
	}
	return translated
}

func messages(of []cachetypes.Resource) []proto.Message {
	var converted []proto.Message
	for _, resource := range of {
		converted = append(converted, resource)
	}
	return converted
}
