// PixelMed's check of structured reports against their templates, for many files: it takes seconds to start.
// java -cp /usr/share/java/pixelmed.jar ValidateReports.java FILE ...
import com.pixelmed.validate.DicomSRValidator;

public class ValidateReports {
    public static void main(String[] files) throws Exception {
        DicomSRValidator validator = new DicomSRValidator();
        for (String file : files) {
            System.out.println("FILE " + file + "\n" + validator.validate(file));
        }
    }
}
