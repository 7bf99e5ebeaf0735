// The workflow that KFP's API server makes of a pipeline: go run kfp_workflow.go PIPELINE.yaml PARAMETERS.json
//
// It is built inside a checkout of kubeflow/pipelines at the server's tag, whose own command, backend/src/v2/cmd/compiler,
// takes no settings of Kubernetes and at 2.17.0 ends with "Attempt to use a non-initialized proxy config".
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/kubeflow/pipelines/backend/src/apiserver/config/proxy"
	"github.com/kubeflow/pipelines/backend/src/apiserver/model"
	"github.com/kubeflow/pipelines/backend/src/apiserver/template"
)

func main() {
	workflow, err := workflow(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
	fmt.Println(workflow)
}

func workflow(pipeline string, parameters string) (string, error) {
	proxy.InitializeConfigWithEnv()
	text, err := os.ReadFile(pipeline)
	if err != nil {
		return "", err
	}
	values, err := os.ReadFile(parameters)
	if err != nil {
		return "", err
	}
	spec, err := template.NewV2SpecTemplate(text, template.TemplateOptions{})
	if err != nil {
		return "", err
	}
	run := &model.Run{DisplayName: "lint", Namespace: "kubeflow", ServiceAccount: "capnet-pipeline"}
	run.RuntimeConfig.Parameters = model.LargeText(values)
	options := template.RunWorkflowOptions{RunID: "0b6b4c52-6d5a-4f3e-9f0e-3b1f2a7c8d90", RunAt: time.Now().Unix()}
	made, err := spec.RunWorkflow(run, options)
	if err != nil {
		return "", err
	}
	return made.ToStringForStore(), nil
}
