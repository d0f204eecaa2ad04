#!/bin/sh
# Compiles the shop's one program for the images.
set -eu
cd "$(dirname "$0")"
CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/shop .
