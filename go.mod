module github.com/launchgate/launchgate

go 1.26.0
