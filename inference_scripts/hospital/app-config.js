// OHIF's settings: one data source, at the address that the viewer itself has; other hosts are asked for nothing.
window.config = {
  name: "litegpt",
  routerBasename: "/",
  extensions: [],
  modes: [],
  customizationService: {},
  showStudyList: true,
  maxNumberOfWebWorkers: 2,
  showWarningMessageForCrossOrigin: false,
  showCPUFallbackMessage: false,
  showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true,
  investigationalUseDialog: { option: "never" },
  maxNumRequests: { interaction: 20, thumbnail: 5, prefetch: 5 },
  defaultDataSourceName: "orthanc",
  dataSources: [
    {
      namespace: "@ohif/extension-default.dataSourcesModule.dicomweb",
      sourceName: "orthanc",
      configuration: {
        friendlyName: "Orthanc",
        name: "orthanc",
        wadoUriRoot: "/dicom-web",
        qidoRoot: "/dicom-web",
        wadoRoot: "/dicom-web",
        qidoSupportsIncludeField: false,
        imageRendering: "wadors",
        thumbnailRendering: "wadors",
        enableStudyLazyLoad: true,
        supportsFuzzyMatching: false,
        supportsWildcard: true,
        dicomUploadEnabled: true,
        omitQuotationForMultipartRequest: true,
        bulkDataURI: { enabled: true },
      },
    },
  ],
};

// OHIF 3.13.2 may decide which boxes of a report to show after it has drawn the picture, on a slow machine nearly always,
// and shows them when the picture is drawn next, such as when somebody drags in it. A double click opens a report:
// draw again some seconds later.
document.addEventListener("dblclick", () => {
  for (const seconds of [1, 2, 4, 8, 16, 32]) {
    setTimeout(() => window.cornerstone?.getRenderingEngines().forEach((engine) => engine.render()), 1000 * seconds);
  }
});
