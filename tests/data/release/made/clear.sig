-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

{"critical":{"image":{"docker-manifest-digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},"type":"atomic container signature","identity":{"docker-reference":"quay.io/r/release:4.16.1-x86_64"}},"optional":{"creator":"test"}}
-----BEGIN PGP SIGNATURE-----

iIEEARYIACkWIQRYmN+JNg70pnmYEs248+PIiL1HigUCXtRFAAsccGxhaW5AdGVz
dAAKCRC48+PIiL1HioxaAP9nFkzUJYsMayOKSRX1FfDKtKIMU+Es7zUEspZ/rceI
vgD/WdrGz1yNk62rmO8fkwSyVpnsZwxhUarjj25Ri8WGmAQ=
=Jlv+
-----END PGP SIGNATURE-----
