# mzd as an image: one static binary, no shell, no root.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -o /mzd ./cmd/mzd
# An empty directory that the user of the image owns: volumes inherit it.
RUN mkdir /empty

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /mzd /usr/local/bin/mzd
COPY --from=build --chown=nonroot:nonroot /empty /var/lib/mzd
WORKDIR /var/lib/mzd
# 8875: the page and the streams. 9875: metrics and status, for operators only.
EXPOSE 8875 9875
ENTRYPOINT ["mzd"]
CMD ["-config", "/etc/mzd/pipeline.yaml"]
