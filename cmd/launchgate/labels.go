package main

import (
	"cmp"
	"fmt"
	"maps"
	"strings"
)

// labelsOfCI are the labels that a CI system's environment gives a run: the commit, the
// branch, the tag as a version, and the address of the job.
func labelsOfCI(getenv func(string) string) map[string]string {
	first := func(names ...string) string {
		for _, name := range names {
			if v := getenv(name); v != "" {
				return v
			}
		}
		return ""
	}
	tag, job := first("CI_COMMIT_TAG", "BUILDKITE_TAG", "CIRCLE_TAG", "BITBUCKET_TAG", "TAG_NAME"), first("CI_JOB_URL", "BUILDKITE_BUILD_URL", "CIRCLE_BUILD_URL", "BUILD_URL")
	branch := first("CI_COMMIT_BRANCH", "BUILDKITE_BRANCH", "CIRCLE_BRANCH", "BITBUCKET_BRANCH", "BUILD_SOURCEBRANCHNAME", "BRANCH_NAME", "GIT_BRANCH")
	if getenv("GITHUB_SHA") != "" {
		job = fmt.Sprintf("%s/%s/actions/runs/%s", getenv("GITHUB_SERVER_URL"), getenv("GITHUB_REPOSITORY"), getenv("GITHUB_RUN_ID"))
		if getenv("GITHUB_REF_TYPE") == "tag" {
			tag = getenv("GITHUB_REF_NAME")
		} else {
			branch = cmp.Or(getenv("GITHUB_HEAD_REF"), getenv("GITHUB_REF_NAME"))
		}
	}
	labels := map[string]string{
		"commit": first("GITHUB_SHA", "CI_COMMIT_SHA", "BUILDKITE_COMMIT", "CIRCLE_SHA1", "BITBUCKET_COMMIT", "BUILD_SOURCEVERSION", "GIT_COMMIT"),
		"branch": branch, "version": tag, "job": job,
	}
	maps.DeleteFunc(labels, func(_, v string) bool { return v == "" })
	return labels
}

// pairsOf reads arguments of the form NAME=VALUE.
func pairsOf(flag string, args []string) (map[string]string, error) {
	pairs := map[string]string{}
	for _, a := range args {
		name, value, ok := strings.Cut(a, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("found %s %s, expected it as %s NAME=VALUE", flag, cmp.Or(name, "nothing"), flag)
		}
		pairs[name] = value
	}
	return pairs, nil
}

// labelled adds to the gate's labels those of the CI system, which come after them, and
// those of the command line, which come before.
func labelled(own map[string]string, args []string, getenv func(string) string) (map[string]string, error) {
	labels := labelsOfCI(getenv)
	maps.Copy(labels, own)
	given, err := pairsOf("--label", args)
	if err != nil {
		return nil, err
	}
	maps.Copy(labels, given)
	if len(labels) == 0 {
		return nil, nil
	}
	return labels, nil
}
