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
		"DB_PWD: x":                                                 "DB_PWD",
		"dbPwd: 12345678":                                           "dbPwd",
		"wifi: {psk: x}":                                            "wifi.psk",
		"smtp_pw: x":                                                "smtp_pw",
		"apikey: x":                                                 "apikey",
		"openaiApiKey: x":                                           "openaiApiKey",
		"API_KEY: x":                                                "API_KEY",
		"s3: {access_key: x}":                                       "s3.access_key",
		"credentials: 'ann:hunter2'":                                "credentials",
		"aws: {credential: x}":                                      "aws.credential",
		"TS_AUTHKEY: x":                                             "TS_AUTHKEY",
		"MEILI_MASTER_KEY: x":                                       "MEILI_MASTER_KEY",
		"SECRET_KEY_BASE: x":                                        "SECRET_KEY_BASE",
		"SERVICE_ROLE_KEY: x":                                       "SERVICE_ROLE_KEY",
		"env: [DB_PASSWORD=x, MODE=prod]":                           "env[0]",
		"password: '${DB_PASSWORD:-s3cret}'":                        "password",
		"password: '${DB_PASSWORD-s3cret}'":                         "password",
		"password: '${DB_PASSWORD:+s3cret}'":                        "password",
		"password: '${A:?x}s3cret${B}'":                             "password",
		"password: '${DB_PASSWORD}s3cret'":                          "password",
		"password: '$ecret'":                                        "password",
		"password: '$DB-s3cret'":                                    "password",
		"password: '$(DB_PASSWORD)s3cret'":                          "password",
		"env: ['DB_PASSWORD=${X:-s3cret}']":                         "env[0]",
		"registryCredentials: 'ann:hunter2'":                        "registryCredentials",
		"registryPassword: regcred":                                 "registryPassword",
		"myCredentials: regcred":                                    "myCredentials",
		"args: [--password-file=/run/secrets/x]":                    "",
		"key: web":                                                  "",
		"keys: [a]":                                                 "",
		"publicKey: x":                                              "",
		"partitionKey: id":                                          "",
		"sshKey: ssh-ed25519 AAAA":                                  "",
		"PWD: /srv/app":                                             "",
		"credentials: include":                                      "",
		"CORS_ALLOW_CREDENTIALS: 'true'":                            "",
		"allowCredentials: true":                                    "",
		"GOOGLE_APPLICATION_CREDENTIALS: /run/secrets/google.json": "",
		"credentials: password":                                      "", // of the package, declared
		"registry: {credentialsSecret: pull}":                        "",
		"existingSecretKey: redis-password":                          "",
		"password: '${DB_PASSWORD}'":                                 "",
		"password: '${DB_PASSWORD:?set it, please}'":                 "",
		"password: '${DB_PASSWORD?}'":                                "",
		"password: '${DB_PASSWORD:-}'":                               "",
		"password: '${DB_PASSWORD-}'":                                "",
		"password: '$DB_PASSWORD'":                                   "",
		"password: '$(DB_PASSWORD)'":                                 "",
		"env: [{name: DB_PASSWORD, value: '$(db-password)'}]":        "",
		"env: ['DB_PASSWORD=${DB_PASSWORD:?}']":                      "",
		"secret: '$CLIENT_SECRET'":                                   "",
		"credentials: '${X:-}'":                                      "",
		"imagePullCredentials: regcred":                              "",
		"image: {pull_credentials: reg.cred-1}":                      "",
		"registryCredentials: regcred":                               "",
		"registry-credential: regcred":                               "",
		"existingCredentials: db":                                    "",
		"password: '{{ .Values.db.password }}'":                      "",
		"AWS_ACCESS_KEY_ID: AKIA":                                    "",
		"tls: {key: '-----BEGIN CERTIFICATE-----'}":                  "",
		"tls: {key: '-----BEGIN PUBLIC KEY-----'}":                   "",
		"tls: {key: '-----BEGIN ENCRYPTED PRIVATE KEY-----'}":        "",
		"text: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t":                 "", // of a certificate
		"secret: password":                                           "", // of the package, declared
		"existingSecret: other":                                      "",
		"passwordSecret: db":                                         "",
		"tls_secret: web":                                            "",
		"imagePullSecret: registry":                                  "",
		"compass: x":                                                 "",
		"bypass: x":                                                  "",
		"passes: '3'":                                                "",
		"pass: 3":                                                    "",
		"token: ''":                                                  "",
		"tokens: 5":                                                  "",
		"secretName: x":                                              "",
		"secrets: {a: b}":                                            "",
		"auth: {secret: true}":                                       "",
		"passwordFile: /run/secrets/password":                        "",
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
		(&app{errw: &said}).warnOfPasswords(values, ofRelease(), []compose.SecretDecl{{Name: "password"}})
		if where == "" && said.Len() > 0 || where != "" && (!strings.Contains(said.String(), "the value "+where+" looks like a password") || strings.Count(said.String(), "\n") != 1) {
			t.Errorf("%s: it says %q", values, said.String())
		}
	}
}

// TestPrivateKeysInValues: they are found by what they are, whatever they are called.
func TestPrivateKeysInValues(t *testing.T) {
	for values, where := range map[string]string{
		"tls: {key: '-----BEGIN PRIVATE KEY-----'}":                      "tls.key",
		"a: [{b: '-----BEGIN EC PRIVATE KEY-----'}]":                     "a[0].b",
		"text: |\n  x\n  -----BEGIN RSA PRIVATE KEY-----\n  AAAA":        "text",
		"deploy: '-----BEGIN OPENSSH PRIVATE KEY-----'":                  "deploy",
		"pgp: '-----BEGIN PGP PRIVATE KEY BLOCK-----'":                   "pgp",
		"privateKey: '-----BEGIN PRIVATE KEY-----'":                      "privateKey",
		"env: [{name: KEY, value: '-----BEGIN PRIVATE KEY-----'}]":       "env[0].value",
		"age: AGE-SECRET-KEY-1QQQQ":                                      "age",
		"data: LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCk1JSUU=":             "data",
		"data: 'LS0tLS1CRUdJTiBSU0EgUFJJVkFU\n\n  RSBLRVktLS0tLQpNSUlF'": "data",
		"url: 'https://a:b@c/-----BEGIN PRIVATE KEY-----'":               "url",
	} {
		var said bytes.Buffer
		(&app{errw: &said}).warnOfPasswords(values, ofRelease(), nil)
		if !strings.Contains(said.String(), "the value "+where+" holds a private key") || strings.Count(said.String(), "\n") != 1 || strings.Contains(said.String(), "generate") {
			t.Errorf("%s: it says %q", values, said.String())
		}
	}
}
