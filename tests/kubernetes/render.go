// Renders the templates of a chart as Helm does, by the engine that Helm has: text/template, with
// the functions that the chart uses.
//
//	render CHART NAMESPACE [VALUES]
//	render MANIFEST
//
// Both print a JSON array of the objects, the second of a manifest as it is.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"sigs.k8s.io/yaml"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func read(path string) map[string]interface{} {
	text, err := os.ReadFile(path)
	check(err)
	values := map[string]interface{}{}
	check(yaml.Unmarshal(text, &values))
	return values
}

// merge lays values over those of the chart, as -f does.
func merge(into, from map[string]interface{}) {
	for key, value := range from {
		inner, isMap := value.(map[string]interface{})
		there, isThere := into[key].(map[string]interface{})
		if isMap && isThere {
			merge(there, inner)
		} else {
			into[key] = value
		}
	}
}

// rendered gives the text of one template.
func rendered(path string, given interface{}) string {
	functions := template.FuncMap{
		"trim":  strings.TrimSpace,
		"quote": func(value interface{}) string { return fmt.Sprintf("%q", fmt.Sprint(value)) },
		"indent": func(width int, text string) string {
			pad := strings.Repeat(" ", width)
			return pad + strings.ReplaceAll(text, "\n", "\n"+pad)
		},
		"toYaml": func(value interface{}) string {
			text, err := yaml.Marshal(value)
			check(err)
			return strings.TrimSuffix(string(text), "\n")
		},
	}
	text, err := os.ReadFile(path)
	check(err)
	parsed, err := template.New(path).Funcs(functions).Option("missingkey=error").Parse(string(text))
	check(err)
	var out strings.Builder
	check(parsed.Execute(&out, given))
	return out.String()
}

func objects(text string) []interface{} {
	all := []interface{}{}
	for _, document := range strings.Split(text, "\n---\n") {
		var object interface{}
		check(yaml.UnmarshalStrict([]byte(document), &object))
		all = append(all, object)
	}
	return all
}

func main() {
	all := []interface{}{}
	if len(os.Args) == 2 {
		text, err := os.ReadFile(os.Args[1])
		check(err)
		all = objects(string(text))
	} else {
		chart := os.Args[1]
		values := read(filepath.Join(chart, "values.yaml"))
		for _, path := range os.Args[3:] {
			merge(values, read(path))
		}
		release := map[string]string{"Name": "netd", "Namespace": os.Args[2]}
		given := map[string]interface{}{"Values": values, "Release": release}
		paths, err := filepath.Glob(filepath.Join(chart, "templates", "*.yaml"))
		check(err)
		for _, path := range paths {
			all = append(all, objects(rendered(path, given))...)
		}
	}
	check(json.NewEncoder(os.Stdout).Encode(all))
}
