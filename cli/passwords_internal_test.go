package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/compose"
)

// TestPasswordsInValues: what is warned of, and what is not.
func TestPasswordsInValues(t *testing.T) {
	for values, where := range map[string]string{
		"auth: {adminPassword: x}":                                  "auth.adminPassword",
		"users: [{name: ann, password: x}]":                         "users[0].password",
		"a: [[{token: x}]]":                                         "a[0][0].token",
		"env: [{name: A, value: b}, {name: DB_PASSWORD, value: x}]": "env[1].value",
		"env: [{name: CLIENT_SECRET, value: x}]":                    "env[0].value",
		"url: 'postgres://shop:hunter2@db:5432/shop'":               "url",
		"urls: ['redis://:hunter2@redis']":                          "urls[0]",
		"dsn: 'tcp; mysql://a:b@db/x'":                              "dsn",
		"db_pass: x":                                                "db_pass",
		"smtp: {pass: x}":                                           "smtp.pass",
		"SMTP_PASS: x":                                              "SMTP_PASS",
		"dbPass: x":                                                 "dbPass",
		"oauth: {clientSecret: x}":                                  "oauth.clientSecret",
		"secret: hunter2":                                           "secret",
		"NEXTAUTH_SECRET: x":                                        "NEXTAUTH_SECRET",
		"encryption-key: x":                                         "encryption-key",
		"secret_key: 123":                                           "secret_key",
		"secret: password":                                          "", // of the package, declared
		"existingSecret: other":                                     "",
		"passwordSecret: db":                                        "",
		"tls_secret: web":                                           "",
		"imagePullSecret: registry":                                 "",
		"compass: x":                                                "",
		"bypass: x":                                                 "",
		"passes: '3'":                                               "",
		"pass: 3":                                                   "",
		"token: ''":                                                 "",
		"tokens: 5":                                                 "",
		"secretName: x":                                             "",
		"secrets: {a: b}":                                           "",
		"auth: {secret: true}":                                      "",
		"passwordFile: /run/secrets/password":                       "",
		"env: [{name: PASSWORD_FILE, value: /run/secrets/password}]": "",
		"url: 'https://shop.example.com:8080/a@b'":                   "",
		"url: 'postgres://shop@db:5432/shop'":                        "",
		"url: 'postgres://shop:$PASSWORD@db'":                        "",
		"url: 'postgres://shop:${PASSWORD}@db'":                      "",
		"url: 'postgres://shop:{{ .Values.x }}@db'":                  "",
		"image: 'docker://alpine:3@sha256:0a'":                       "",
		"image: 'registry.example.com:5000/shop:1@sha256:0a'":        "",
		"mail: 'ann@example.com'":                                    "",
	} {
		var said bytes.Buffer
		(&app{errw: &said}).warnOfPasswords(values, "release", []compose.SecretDecl{{Name: "password"}})
		if where == "" && said.Len() > 0 || where != "" && (!strings.Contains(said.String(), "the value "+where+" looks like a password") || strings.Count(said.String(), "\n") != 1) {
			t.Errorf("%s: it says %q", values, said.String())
		}
	}
}
