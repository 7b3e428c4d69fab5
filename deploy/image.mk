# make image: netd as an OCI image, for deploy/kubernetes/netd.yaml.
#
#   IMAGE_NAME  the name that it is imported under
#   IMAGE_OUT   the archive

IMAGE_NAME ?= localhost/netd:$(shell sed -n 's/^version = "\(.*\)"$$/\1/p' $(ROOT)/Cargo.toml | head -n 1)
IMAGE_OUT ?= $(CARGO_TARGET_DIR)/image/netd.tar

.PHONY: image
image: build-programs ## netd as an OCI image for Kubernetes, in target/image (release build)
	@$(ROOT)/deploy/image.sh $(TARGET_RELEASE) $(IMAGE_OUT) $(IMAGE_NAME)
	@echo "$(IMAGE_OUT): $(IMAGE_NAME); import it on each node:"
	@echo "  ctr -n k8s.io images import $(notdir $(IMAGE_OUT))"
